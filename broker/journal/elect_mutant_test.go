//go:build linux

package journal

import "testing"

var electMutants = []mutant{
	{"place not waited for", "TestRaceInProcess", "wait.go", []string{
		"delay := time.Duration(place) * rankDelay", "delay := time.Duration(place) * 0",
	}},
	{"successor not waited for", "TestSuccessor", "wait.go", []string{
		"		delay += successorWait\n", "",
	}},
	{"other stores of the process not counted", "TestTwoStoresGoToTwo", "wait.go", []string{
		"	if err := c.here.show(now, c.opt.Standing(), c.here.card.Warm); err != nil {", "	if err := c.here.show(now, c.here.card.Standing, c.here.card.Warm); err != nil {",
	}},
	{"stopped candidate waited for", "TestRoster", "roster.go", []string{
		"c := m.card; m.silent < absentAfter {", "c := m.card; m.silent < time.Hour {",
	}},
	{"copy kept at any place", "TestFollowByPlace", "follow.go", []string{
		"now.Sub(f.far) >= restAfter", "now.Sub(f.far) >= time.Hour",
	}},
	{"copy not forgotten with its place", "TestFollowByPlace", "follow.go", []string{
		"f.drop(f.r != nil && f.r.records > 0)", "f.drop(false)",
	}},
	{"a claim is no sign of life", "TestThiefDies", "lease.go", []string{
		"		c.watch.alive()\n", "",
	}},
	{"LOCK not put back", "TestOwnerKeepsItsLock", "open.go", []string{
		"			j.keepLock()\n", "",
	}},
	{"ghost of a LOCK waited for", "TestThievesRace", "wait.go", []string{
		"	if sameFile(c.file, path) {\n		return nil\n	}\n	f, err := openLock(c.disk)", "	return nil\n	f, err := openLock(c.disk)",
		"	// Somebody may have put", "	if c != nil {\n		c.opt.Won()\n		return true, nil\n	}\n	// Somebody may have put",
	}},
	{"claim by a ghost", "TestStoppedBeforeTheClaim", "open.go", []string{
		"if !j.opt.noLock && !j.lock.ours(j.disk) {", "if false {",
	}},
	{"store stolen that nobody has begun", "TestNewStoreIsNotStolen", "lease.go", []string{
		`c.top > 0 && c.others.store != "" &&`, "",
	}},
	{"lock let go before all is durable", "TestRaceInProcess", "open.go", []string{
		"		<-j.down\n", "		j.lock.release(false, LSN(j.durable.Load()), successor)\n		<-j.down\n",
	}},
	{"last word believed after others came", "TestLeftInGoodOrder", "lock.go", []string{
		" && m.epoch == ours-1", " && ours > 0",
	}},
}

// TestElectMutants is TestMutants for candidates, hand-overs and leases.
func TestElectMutants(t *testing.T) { runMutants(t, electMutants) }
