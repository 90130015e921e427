package sessiontest

// Matrix collects which cells of the cut-point matrix were struck.
type Matrix struct{}

type refusalWay uint8

const (
	waySlams refusalWay = iota
	wayStalls
	wayRejects
)

func (m *Matrix) way(refusalWay) {}
