package db

import (
	"cmp"
	"errors"
	"slices"

	"github.com/crowfly/crowfly/db/manifest"
	"github.com/crowfly/crowfly/segment"
)

// candidate is a sealed segment as compaction sees it.
type candidate struct {
	seg        *segment.Segment
	live       int64   // bytes of records that are present values
	need       int64   // bytes that have to be copied, at most
	tombstones int64   // bytes of need that don't if all segments are compacted together
	gain       int64   // bytes that go when it is compacted alone, blobs included
	age        float64 // 0 for the youngest, 1 for the oldest
	min        uint64  // lowest sequence number
}

// worth is the benefit of a compaction over its cost, as in Rosenblum and
// Ousterhout, "The Design and Implementation of a Log-Structured File System",
// 1991: what is freed times how long it is likely to stay so, over what has to
// be read and written. What is old and still there will be there for a while;
// a young segment soon has more to give.
func (c candidate) worth() float64 {
	size := float64(c.seg.Len())
	return float64(c.gain) * (0.2 + c.age) / (size + float64(c.live))
}

// worthwhile reports whether Compact is to do it.
func (c candidate) worthwhile() bool { return c.gain >= c.seg.Len()/jobGain }

// space is what the store takes and needs.
type space struct {
	candidates []candidate
	live       int64 // bytes of present values, blobs included
	total      int64 // bytes of all files
	stuck      int64 // bytes of tombstones that compacting one segment does not remove
	active     int64 // bytes that are dead in the active segment, blobs included
}

// reclaimable is about what Compact gives back: not what it leaves for not
// being worth it, or for being damaged.
func (s *space) reclaimable(suspect []segment.ID) int64 {
	n := s.active
	for _, c := range s.candidates {
		if c.worthwhile() && !slices.Contains(suspect, c.seg.ID()) {
			n += c.gain
		}
	}
	if s.stuck > s.live/jobStuck && len(suspect) == 0 {
		n += s.stuck
	}
	return n
}

// excess is how many bytes there are beyond the target.
func (s *space) excess(target float64) int64 { return s.total - int64(target*float64(s.live)) }

// measure looks at all segments.
func (db *DB) measure() space {
	var s space
	m := db.currentManifest()
	named := make(map[segment.ID]*manifest.Entry, len(m.Segments))
	for i := range m.Segments {
		named[m.Segments[i].ID] = &m.Segments[i]
	}
	lowest, second := m.LowestSeqs()
	for _, usage := range db.index.Usages() {
		seg := usage.Segment
		e := named[seg.ID()]
		if e == nil {
			continue
		}
		blobs, dead := db.blobs.bytes(seg)
		s.live += usage.Bytes + blobs - dead
		s.total += seg.Len() + blobs
		if e.Active {
			s.active = seg.Len() - segment.HeaderSize - usage.Bytes + dead
			continue
		}
		stuck, others := usage.Tombstones, lowest
		if e.Tally.MinSeq == lowest {
			others = second
		}
		if others > e.Tally.MaxSeq {
			stuck = 0
		}
		s.stuck += stuck
		s.candidates = append(s.candidates, candidate{
			seg: seg, live: usage.Bytes, min: e.Tally.MinSeq,
			need: usage.Bytes + usage.Newer + usage.Tombstones, tombstones: usage.Tombstones,
			gain: seg.Len() - segment.HeaderSize - usage.Bytes - usage.Newer - stuck + dead,
			age:  1 - float64(e.Tally.MaxSeq)/float64(m.NextSeq),
		})
	}
	return s
}

const (
	startAt   = 0.8 // of the space target, so that the target is not exceeded for long
	minGain   = 20  // the part of a segment, one in so many, that must be dead for it to be compacted
	mostStuck = 10  // the part of the live bytes that stuck tombstones may take
	maxInputs = 16  // that have to be read
	maxDead   = 256
)

// pick chooses what to compact in the background, or nothing as long as the
// store keeps to its space target and the disk is not nearly full. The caller
// holds compactor.mu.
func (db *DB) pick() *compaction {
	db.compactor.short = false
	db.compactor.lack.attempts = max(db.compactor.lack.attempts-1, 0)
	s := db.measure()
	floor := db.opts.SegmentSize / 8 // a store this small is not worth it
	if s.total-s.live < floor+int64(startAt*(db.opts.SpaceTarget-1)*float64(s.live)) && !db.scarce() {
		return nil
	}
	if db.sealDeadBlobs(&s) {
		s = db.measure()
	}
	s.drop(func(c candidate) bool { return db.compactor.suspect[c.seg.ID()] != nil })
	small := s.small(db.opts.SegmentSize / foldRatio)
	s.drop(func(c candidate) bool { return c.gain < c.seg.Len()/minGain })
	size := min(db.opts.SegmentSize, db.fit(&s, db.roomToTry))
	inputs := segmentsOf(withSmall(s.best(size), small, size))
	if len(inputs) == 0 && s.stuck > s.live/mostStuck {
		inputs = db.oldestRange(db.roomToTry())
	}
	if len(inputs) == 0 {
		return nil
	}
	return db.newCompaction(inputs)
}

// manyDead reports whether there are so many wholly dead segments that they go
// before anything that takes time.
func (db *DB) manyDead() bool {
	s := db.measure()
	s.drop(func(c candidate) bool { return c.need > 0 })
	return len(s.candidates) > maxInputs
}

func (s *space) drop(unfit func(candidate) bool) {
	s.candidates = slices.DeleteFunc(s.candidates, unfit)
}

// fit drops the candidates that there is no room to copy, as measure says, and
// returns how much there is. What is wholly dead needs none. If nothing fits that
// is worthwhile it forces a collection and waits a moment for what that gives back
// of files that were removed; what does not fit then is tried again when more of
// them have gone.
func (db *DB) fit(s *space, measure func() int64) (room int64) {
	if db.compactor.short = false; len(s.candidates) == 0 {
		return 0
	}
	var least, most int64
	for i, c := range s.worthwhile() {
		if most = max(most, c.need); i == 0 || c.need < least {
			least = c.need
		}
	}
	if room = measure(); room < least && len(db.pinned.held()) > 0 {
		db.collectUntil(func() bool { room = measure(); return room >= least })
	}
	db.compactor.short = room < most                        // sabotage: note-short
	s.drop(func(c candidate) bool { return c.need > room }) // sabotage: drop-unfit
	return room
}

// worthwhile are the candidates that Compact would do.
func (s *space) worthwhile() []candidate {
	return slices.DeleteFunc(slices.Clone(s.candidates), func(c candidate) bool { return !c.worthwhile() })
}

// small are the candidates that are shorter than so many bytes.
func (s *space) small(below int64) []candidate {
	return slices.DeleteFunc(slices.Clone(s.candidates), func(c candidate) bool { return c.seg.Len() >= below })
}

// best returns the candidates that are worth most, as many as give a segment of
// the given size.
func (s *space) best(size int64) []candidate {
	slices.SortFunc(s.candidates, func(a, b candidate) int { return cmp.Compare(b.worth(), a.worth()) })
	if len(s.candidates) == 0 {
		return nil
	}
	group := s.take(size)
	return group[:atMost(group)]
}

// atMost is how many of a group may be compacted at once. What is wholly dead goes
// without being read.
func atMost(group []candidate) int {
	read := 0
	for i, c := range group {
		if c.need > 0 {
			read++
		}
		if read > maxInputs || i == maxDead {
			return i
		}
	}
	return len(group)
}

// withSmall adds small candidates to a group that leaves room for them in a
// segment of the given size, so that there get to be fewer. None are added to
// those that need not be copied, which can go at once.
func withSmall(group, small []candidate, size int64) []candidate {
	left := size
	for _, c := range group {
		left -= c.need
	}
	for _, c := range small {
		there := slices.ContainsFunc(group, func(in candidate) bool { return in.seg == c.seg })
		if left < size && c.need <= left && !there {
			group, left = append(group, c), left-c.need
		}
	}
	return group
}

func segmentsOf(group []candidate) (list []*segment.Segment) {
	for _, c := range group {
		list = append(list, c.seg)
	}
	return list
}

// sealDeadBlobs seals an active segment whose dead blobs are what the store is
// too large by: they go with it only. It reports whether it did.
func (db *DB) sealDeadBlobs(s *space) bool {
	db.write.Lock()
	defer db.write.Unlock()
	w := db.writer.active
	if w == nil || db.writable() != nil {
		return false
	}
	_, dead := db.blobs.bytes(w.Segment())
	return 2*dead > s.total-s.live && db.rotate(0) == nil // a failure stops nothing but this
}

// oldestRange returns all sealed segments: only together can they lose the
// tombstones that keep their own older records dead. There are none if they need
// more than so many bytes.
func (db *DB) oldestRange(room int64) (inputs []*segment.Segment) {
	s := db.measure()
	for _, c := range s.candidates {
		if room -= c.need - c.tombstones; room < 0 || db.compactor.suspect[c.seg.ID()] != nil {
			return nil
		}
		inputs = append(inputs, c.seg)
	}
	return inputs
}

const (
	foldRatio   = 4 // a segment is folded with newer ones up to this many times their size
	foldMinimum = 2
)

// pickFold chooses small segments of earlier runs, which every run leaves one of.
// It is called once a run.
func (db *DB) pickFold() (inputs []*segment.Segment) {
	open := db.index.Segments()
	if open == nil {
		return nil
	}
	for _, id := range chooseFold(db.manifests.Current().Segments, db.segmentSize()) {
		inputs = append(inputs, open.Find(id))
	}
	return inputs
}

// chooseFold divides the small segments into groups and returns the
// group with the most segments, of these the newest, or nil if none has two. Going
// back from the newest segment, one joins a group while it is not much larger than
// all of that group together, as in a binary counter, and else begins the next
// group. So no byte is copied more often than the logarithm of the sizes says, and
// as each group is folded in turn, no more segments than that are left, in
// whatever order segments of which size have come.
func chooseFold(segs []manifest.Entry, most int64) (best []segment.ID) {
	var group []segment.ID
	var size int64
	for i := len(segs) - 1; i >= 0; i-- {
		e := segs[i]
		if e.Active || e.Length > most/foldRatio {
			continue
		}
		if len(group) > 0 && e.Length > foldRatio*size || size+e.Length > most {
			group, size = nil, 0
		}
		group = append(group, e.ID)
		size += e.Length
		if len(group) > len(best) {
			best = group
		}
	}
	if len(best) < foldMinimum {
		return nil
	}
	return best
}

// compactJob is what one call of Compact has to do.
type compactJob struct {
	left     map[segment.ID]bool // segments it has not come to
	together bool                // all at once, for the sake of the tombstones
	groups   int64               // segments of output at a time, and of disk space
	running  *compaction         // the last part begun, until it is known how it ended
	progress CompactProgress
}

// end takes note of how the last part has ended, and returns its error unless it
// is to be done again: after a pause, or once on a full disk with less at a time.
func (j *compactJob) end() error {
	part := j.running
	if j.running = nil; part == nil {
		return nil
	}
	if errors.Is(part.failed, errPaused) {
		j.again(part) // sabotage: again-after-pause
		return nil
	}
	if j.together = false; isNoSpace(part.failed) && len(part.inputs) > 1 && j.groups > 1 {
		j.groups = 1
		j.again(part)
		return nil
	}
	return part.failed
}

// again has the inputs of a part that failed be compacted all the same.
func (j *compactJob) again(part *compaction) {
	for _, in := range part.inputs {
		j.left[in.ID()] = true
	}
}

const (
	jobGain   = 100 // as minGain, for Compact
	jobStuck  = 100 // as mostStuck
	jobGroups = 4
)

func (db *DB) planCompact() *compactJob {
	job := &compactJob{left: make(map[segment.ID]bool), groups: jobGroups}
	s := db.measure()
	for _, c := range s.candidates {
		job.left[c.seg.ID()] = true
		job.progress.Total += c.seg.Len() - segment.HeaderSize
	}
	job.together = s.stuck > s.live/jobStuck
	return job
}

// next returns the inputs of the next compaction of a job, oldest first. The
// caller holds compactor.mu.
func (db *DB) next(job *compactJob) (inputs []*segment.Segment) {
	if job.together {
		if inputs := db.oldestRange(db.roomToCopy()); len(inputs) > 0 {
			return inputs
		}
		job.together = false
	}
	s, most := db.measure(), db.segmentSize()
	s.drop(func(c candidate) bool {
		small := c.seg.Len() < most/foldRatio
		return !job.left[c.seg.ID()] || !c.worthwhile() && !small || db.compactor.suspect[c.seg.ID()] != nil
	})
	room := db.fit(&s, db.roomToCopy)
	slices.SortFunc(s.candidates, func(a, b candidate) int { return cmp.Compare(a.min, b.min) })
	for len(s.candidates) > 0 {
		group := s.take(min(job.groups*db.opts.SegmentSize, room))
		for _, c := range group {
			delete(job.left, c.seg.ID())
			inputs = append(inputs, c.seg)
		}
		if len(group) > 1 || group[0].worthwhile() {
			return inputs
		}
		inputs = nil // a small segment that has nobody to go with
	}
	return nil
}

// take removes the first candidates, at least one, that need so many bytes
// together.
func (s *space) take(most int64) (group []candidate) {
	var need int64
	n := 0
	for n < len(s.candidates) && (n == 0 || need+s.candidates[n].need <= most) {
		need += s.candidates[n].need
		n++
	}
	group, s.candidates = s.candidates[:n], s.candidates[n:]
	return group
}
