// Package measure has what the programs of this module share: what the machine
// is, what files take on disk, what the process takes of memory, mappings and
// descriptors, and values that can be checked without having been kept.
//
// It reads /proc and so needs Linux.
package measure
