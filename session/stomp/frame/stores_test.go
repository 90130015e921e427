package frame

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestStores(t *testing.T) {
	long := strings.Repeat("n", MaxStoreName)
	for _, c := range []struct {
		name, value string
		stores      []Store
	}{
		{"none", "", nil},
		{"one", "u-1;7;orders", []Store{{"u-1", "orders", 7}}},
		{"not served, without a name", "u-1;0;", []Store{{"u-1", "", 0}}},
		{"several", "u-1;18446744073709551615;a.b,u-2;0;c_d", []Store{{"u-1", "a.b", 1<<64 - 1}, {"u-2", "c_d", 0}}},
		{"longest", long + ";1;" + long, []Store{{long, long, 1}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := ParseStores([]byte(c.value))
			if !ok || !slices.Equal(got, c.stores) {
				t.Fatalf("parsed %+v %v", got, ok)
			}
			want := ""
			if c.value != "" {
				want = HeaderStores + ":" + c.value + "\n"
			}
			if line := string(AppendStores(nil, c.stores)); line != want {
				t.Fatalf("wrote %q", line)
			}
		})
	}
}

func TestStoresMalformed(t *testing.T) {
	many := make([]string, MaxStores+1)
	for i := range many {
		many[i] = fmt.Sprintf("u%d;1;", i)
	}
	for name, value := range map[string]string{
		"no epoch": "u-1", "one semicolon": "u-1;1", "no number": "u-1;x;n", "empty number": "u-1;;n", "too large": "u-1;18446744073709551616;n", "no UUID": ";1;n",
		"a name with a semicolon": "u-1;1;a;b", "a name with a space": "u-1;1;a b", "a long name": "u-1;1;" + strings.Repeat("n", MaxStoreName+1),
		"a long UUID": strings.Repeat("u", MaxStoreName+1) + ";1;", "comma at the end": "u-1;1;n,", "twice": "u-1;1;n,u-1;2;m", "too many": strings.Join(many, ","),
	} {
		if got, ok := ParseStores([]byte(value)); ok || got != nil {
			t.Errorf("%s: parsed %+v %v", name, got, ok)
		}
	}
}

// What is written is always what can be read, whatever it was asked to write.
func TestStoresAreBounded(t *testing.T) {
	stores := []Store{{UUID: "", Name: "no-uuid"}, {UUID: "a:b"}, {UUID: "u", Name: "a,b"}}
	for i := range MaxStores {
		stores = append(stores, Store{UUID: fmt.Sprint("u", i), Name: "n", Epoch: uint64(i)})
	}
	line := string(AppendStores(nil, stores))
	value, _ := strings.CutPrefix(strings.TrimSuffix(line, "\n"), HeaderStores+":")
	got, ok := ParseStores([]byte(value))
	if !ok || len(got) != MaxStores || got[0] != (Store{UUID: "u"}) || got[1] != (Store{"u0", "n", 0}) {
		t.Fatalf("%d stores read back, %v: %q", len(got), ok, line)
	}
	if line := AppendStores(nil, stores[:2]); line != nil {
		t.Errorf("nothing to name is %q", line)
	}
}

func FuzzStores(f *testing.F) {
	for _, seed := range []string{"", "u-1;7;orders", "u-1;0;,u-2;9;b", "u;1;,u;2;", ";;", "u;1;n,", "u;01;n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, v []byte) {
		stores, ok := ParseStores(v)
		if !ok {
			return
		}
		if len(stores) > MaxStores {
			t.Fatalf("%d stores", len(stores))
		}
		line := string(AppendStores(nil, stores))
		value, _ := strings.CutPrefix(strings.TrimSuffix(line, "\n"), HeaderStores+":")
		again, ok := ParseStores([]byte(value))
		if !ok || !slices.Equal(again, stores) {
			t.Fatalf("%q reads as %+v, and written again as %+v", v, stores, again)
		}
	})
}
