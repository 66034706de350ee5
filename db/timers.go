package db

import "github.com/crowfly/crowfly/segment"

// scheduleTimers arranges for what has to happen some time after a commit. The
// caller holds db.write.
func (db *DB) scheduleTimers() {
	if db.writer.active == nil {
		return
	}
	if db.opts.Sync == SyncInterval && !db.writer.timers.sync {
		db.writer.timers.sync = true
		db.fs.AfterFunc(db.opts.SyncEvery, db.syncTimer)
	}
	db.scheduleCompaction(compactEvery)
	if !db.writer.timers.watermark {
		db.writer.timers.watermark = true
		db.fs.AfterFunc(watermarkIdle, db.watermarkTimer)
	}
}

// timers tells which are under way.
type timers struct{ sync, watermark bool }

func (db *DB) syncTimer() {
	db.write.Lock()
	defer db.write.Unlock()
	db.writer.timers.sync = false
	if db.writable() == nil && db.syncActive() == nil {
		db.scheduleTimers()
	}
}

// watermarkTimer writes a record that says how far the segment is known to be
// synced, if no record says so yet. Until then the last group looks to
// recovery like any torn tail, and a follower does not show it.
func (db *DB) watermarkTimer() {
	db.write.Lock()
	defer db.write.Unlock()
	db.writer.timers.watermark = false
	w := db.writer.active
	if db.writable() != nil || db.checkDirectory() != nil || w == nil || db.writer.broken || !w.Unmarked() || !w.Fits(segment.WatermarkSize) {
		return
	}
	w.Append(segment.NewWatermark(db.writer.seq))
	if err := w.Reserve(0, nil); err != nil {
		w.Discard()
		return
	}
	if err := w.Write(); err != nil {
		db.writer.broken = true
		return
	}
	db.syncActive() // a failure is remembered and stops writing
}
