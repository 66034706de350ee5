package simdisk

import (
	"slices"
	"strings"
)

// names is a directory, sorted by name, in which a file has one name. It is
// immutable: whatever changes it returns a new one.
type names []entry

type entry struct {
	name string
	ino  *inode
}

func (ns names) find(name string) (int, bool) {
	return slices.BinarySearchFunc(ns, name, func(e entry, name string) int {
		return strings.Compare(e.name, name)
	})
}

// get returns nil if there is no such name.
func (ns names) get(name string) *inode {
	if i, ok := ns.find(name); ok {
		return ns[i].ino
	}
	return nil
}

// put adds a name, or points it elsewhere.
func (ns names) put(name string, ino *inode) names {
	i, ok := ns.find(name)
	rest := ns[i:]
	if ok {
		rest = ns[i+1:]
	}
	out := make(names, 0, len(ns)+1)
	out = append(out, ns[:i]...)
	out = append(out, entry{name, ino})
	return append(out, rest...)
}

// without drops the name of a file, whatever it is.
func (ns names) without(ino *inode) names {
	i := slices.IndexFunc(ns, func(e entry) bool { return e.ino == ino })
	if i < 0 {
		return ns
	}
	return slices.Concat(ns[:i], ns[i+1:])
}

// change is one operation on names. It is atomic: it survives a power cut or
// it doesn't.
type change struct {
	kind changeKind
	name string // created, renamed to, or removed
	ino  *inode
}

type changeKind uint8

const (
	created changeKind = iota
	renamed
	removed
)

// apply does a change. All changes in order give what programs see. After a
// power cut some of them may be missing, so a change must make sense on its
// own. What it carries is what the entry under its name is from now on:
//
//   - A create or rename found its name free. If the removal that freed it is
//     missing, the new file takes the name over, and the old one is gone.
//   - A rename moves the file from wherever it is. If its create is missing
//     the file appears under the new name directly; that both are missing is
//     another choice. If an earlier rename is missing, this one includes it:
//     a file never has two names.
//   - A remove takes away the name it was called with. If the rename that gave
//     the file this name is missing, the file stays under its older name.
func (c change) apply(ns names) names {
	if c.kind == removed {
		if ns.get(c.name) != c.ino {
			return ns
		}
		return ns.without(c.ino)
	}
	return ns.without(c.ino).put(c.name, c.ino)
}
