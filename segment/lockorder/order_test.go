package lockorder

import "testing"

func TestEveryPlaceOnce(t *testing.T) {
	seen := map[any]bool{}
	for _, place := range order {
		if seen[place] {
			t.Errorf("%T is there twice", place)
		}
		seen[place] = true
	}
}
