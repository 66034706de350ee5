package fuzz

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/crowfly/crowfly/db"
	"github.com/crowfly/crowfly/segment"
	"github.com/crowfly/crowfly/segment/vfs"
)

// beOpener opens and closes stores as it is told: "open PATH", "probe PATH" (open
// and close again), "read PATH" (the value of k, read-only), "touch FILE" (read it and close it), "cd PATH", "close".
func beOpener([]string) error {
	var store *db.DB
	return answer(func(line string) string {
		verb, path, _ := strings.Cut(line, " ")
		switch verb {
		case "open":
			var err error
			if store, err = db.Open(path, small); err != nil {
				return spoken(err)
			}
			return "open"
		case "probe":
			return probe(path)
		case "read":
			return readOnly(path)
		case "touch":
			return touch(path)
		case "cd":
			return spoken(os.Chdir(path))
		case "close":
			return spoken(store.Close())
		}
		return "what?"
	})
}

// small makes opening cheap.
var small = &db.Options{SegmentSize: 1 << 20}

// spoken is what a child says of an error.
func spoken(err error) string {
	if errors.Is(err, db.ErrLocked) {
		return "locked"
	}
	return strings.ReplaceAll(fmt.Sprint(err), "\n", " ")
}

// probe tries to open a store for writing.
func probe(path string) string {
	store, err := db.Open(path, small)
	if err != nil {
		return spoken(err)
	}
	if err := store.Close(); err != nil {
		return spoken(err)
	}
	return "open"
}

// readOnly returns the value of k.
func readOnly(path string) string {
	store, err := db.Open(path, &db.Options{ReadOnly: true})
	if err != nil {
		return spoken(err)
	}
	value, err := store.Get(nil, []byte("k"))
	if err := errors.Join(err, store.Close()); err != nil {
		return spoken(err)
	}
	return string(value)
}

// touch does to a file what a backup or an editor does.
func touch(path string) string {
	for _, flag := range []int{os.O_RDONLY, os.O_RDWR} {
		f, err := os.OpenFile(path, flag, 0)
		if err != nil {
			return spoken(err)
		}
		f.Read(make([]byte, 1))
		if err := f.Close(); err != nil {
			return spoken(err)
		}
	}
	return "<nil>"
}

func openStore(t *testing.T, dir string) *db.DB {
	t.Helper()
	store, err := db.Open(dir, small)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

func closeStore(t *testing.T, store *db.DB) {
	t.Helper()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, store *db.DB, key, value string) {
	t.Helper()
	if err := store.Put([]byte(key), []byte(value), nil); err != nil {
		t.Fatal(err)
	}
}

// spellings are the ways to name one directory. The relative ones are for a
// working directory beside it.
func spellings(t *testing.T, dir string) (beside string, list []string) {
	t.Helper()
	beside = t.TempDir()
	link, chain := filepath.Join(beside, "link"), filepath.Join(beside, "chain")
	handle, err := os.Open(dir)
	if err == nil {
		err = errors.Join(os.Symlink(dir, link), os.Symlink("link", chain))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { handle.Close() })
	relative, err := filepath.Rel(beside, dir)
	if err != nil {
		t.Fatal(err)
	}
	return beside, append([]string{
		dir, dir + "/", dir + "//./", filepath.Dir(dir) + "/./nowhere/../" + filepath.Base(dir), link, chain,
		"chain", "./link/", relative,
		"/proc/self/root" + dir, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), handle.Fd()),
	}, bindMount(t, dir)...)
}

// bindMount makes the directory appear in another place, if that is allowed.
func bindMount(t *testing.T, dir string) []string {
	t.Helper()
	place := t.TempDir()
	if err := syscall.Mount(dir, place, "", syscall.MS_BIND, ""); err != nil {
		if os.Getuid() == 0 {
			t.Log("bind mount: ", err)
		}
		return nil
	}
	t.Cleanup(func() { unmount(t, place) })
	return []string{place}
}

func unmount(t *testing.T, place string) {
	t.Helper()
	if err := syscall.Unmount(place, syscall.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

// TestLockSpelling: whatever the directory is called and whoever asks, this
// process or another, there is one writer. When it has closed the store any
// name will do.
func TestLockSpelling(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	t.Chdir(filepath.Dir(dir))
	store := openStore(t, "store")
	put(t, store, "k", "v")
	beside, names := spellings(t, dir)
	t.Chdir(beside)
	other := startChild(t, "opener")
	if got := other.ask("cd " + beside); got != "<nil>" {
		t.Fatal(got)
	}
	for _, name := range names {
		if got := probe(name); got != "locked" {
			t.Errorf("here, %s: %s", name, got)
		}
		if got := other.ask("probe " + name); got != "locked" {
			t.Errorf("there, %s: %s", name, got)
		}
	}
	put(t, store, "k", "w") // the store stays where it was opened
	closeStore(t, store)
	for _, name := range names {
		if got := probe(name); got != "open" {
			t.Errorf("here, afterwards, %s: %s", name, got)
		}
		if got := other.ask("probe " + name); got != "open" {
			t.Errorf("there, afterwards, %s: %s", name, got)
		}
	}
	other.end()
}

// TestLockSurvivesTouch: a lock is not lost because somebody, this process
// included, opens the lock file and closes it again.
func TestLockSurvivesTouch(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, dir)
	lock := filepath.Join(dir, segment.LockName)
	other := startChild(t, "opener")
	for who, ask := range map[string]func(string) string{
		"here": touch, "there": func(path string) string { return other.ask("touch " + path) },
	} {
		if got := ask(lock); got != "<nil>" {
			t.Fatal(got)
		}
		if got := probe(dir); got != "locked" {
			t.Errorf("touched %s: %s", who, got)
		}
		if got := other.ask("probe " + dir); got != "locked" {
			t.Errorf("touched %s, asked there: %s", who, got)
		}
	}
	closeStore(t, store)
	other.end()
}

// TestLockFreed: a writer that is killed or dies of anything else frees the store
// at once, even if a process it started lives on, with files that were passed on
// to it.
func TestLockFreed(t *testing.T) {
	dir := t.TempDir()
	d, err := vfs.OpenDir(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGQUIT} {
		life, end, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		writer := newChild(t, "parent", dir)
		writer.cmd.ExtraFiles = []*os.File{life}
		heir := writer.start().expect()
		life.Close()
		if got := probe(dir); got != "locked" {
			t.Fatal(got)
		}
		checkHeir(t, heir, dir)
		writer.cmd.Process.Signal(signal)
		writer.cmd.Wait()
		if _, err := os.Stat("/proc/" + heir + "/exe"); err != nil {
			t.Fatalf("the child of the writer is gone: %v", err)
		}
		if held, err := d.Locked(segment.LockName); held || err != nil {
			t.Fatalf("%v: still locked, %v", signal, err)
		}
		if got := probe(dir); got != "open" {
			t.Fatalf("%v: %s", signal, got)
		}
		end.Close()
	}
}

// checkHeir makes sure that a process has no file of the store.
func checkHeir(t *testing.T, pid, dir string) {
	t.Helper()
	list, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range list {
		target, err := os.Readlink("/proc/" + pid + "/fd/" + fd.Name())
		if err == nil && strings.HasPrefix(target, dir) {
			t.Errorf("the child of the writer has inherited %s", target)
		}
	}
}

// beParent opens a store, writes, starts a process that lives as long as the
// test wants, which it hears through file 3, tells its number and waits.
func beParent(args []string) error {
	store, err := db.Open(args[0], small)
	if err != nil {
		return err
	}
	if err := store.Put([]byte("k"), []byte("v"), nil); err != nil {
		return err
	}
	life := os.NewFile(3, "life")
	heir := exec.Command(os.Args[0])
	heir.Env = append(os.Environ(), roleVariable+"=opener")
	heir.Stdin, heir.ExtraFiles = life, []*os.File{life, os.Stdout}
	if err := heir.Start(); err != nil {
		return err
	}
	fmt.Println(heir.Process.Pid)
	return answer(func(string) string { return "" })
}

// TestLockFileReplaced: a lock file that somebody removed, and one that was made
// in its place, let no second writer in.
func TestLockFileReplaced(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, dir)
	put(t, store, "k", "v")
	other := startChild(t, "opener")
	lock := filepath.Join(dir, segment.LockName)
	for _, replace := range []func() error{
		func() error { return os.Remove(lock) },
		func() error { return errors.Join(os.Remove(lock), os.WriteFile(lock, nil, 0o644)) },
		func() error { return errors.Join(os.WriteFile(lock+"2", nil, 0o644), os.Rename(lock+"2", lock)) },
	} {
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		if got := probe(dir); got != "locked" {
			t.Errorf("here: %s", got)
		}
		if got := other.ask("probe " + dir); got != "locked" {
			t.Errorf("there: %s", got)
		}
		put(t, store, "k", "v")
	}
	closeStore(t, store)
	if got := other.ask("probe " + dir); got != "open" {
		t.Errorf("afterwards: %s", got)
	}
	other.end()
}

// TestLockReadOnly: readers take no lock and need none. However many of them
// look at the store, here and in another process, a writer can come and go, and
// a reader makes no lock file.
func TestLockReadOnly(t *testing.T) {
	dir := t.TempDir()
	reader, err := db.Open(dir, &db.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("a reader made %v", files)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() { lookUntil(t, stop, reader, dir) })
	}
	other := startChild(t, "opener")
	for n := range 15 {
		store := openStore(t, dir)
		put(t, store, "k", fmt.Sprint(n))
		closeStore(t, store)
		if got := other.ask("probe " + dir); got != "open" {
			t.Fatalf("there: %s", got)
		}
	}
	close(stop)
	readers.Wait()
	if err := reader.Refresh(); err != nil {
		t.Fatal(err)
	}
	if v, err := reader.Get(nil, []byte("k")); string(v) != "14" || err != nil {
		t.Errorf("the reader has %q, %v", v, err)
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
	other.end()
}

// lookUntil keeps looking at a store, through one that is open and by opening
// another.
func lookUntil(t *testing.T, stop chan struct{}, reader *db.DB, dir string) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		fresh, err := db.Open(dir, &db.Options{ReadOnly: true})
		if err == nil {
			err = errors.Join(reader.Refresh(), fresh.Close())
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// TestLockRefused: what can't be locked is not opened, with an error that names
// the file, and stays as it is.
func TestLockRefused(t *testing.T) {
	dir := t.TempDir()
	lock := filepath.Join(dir, segment.LockName)
	if err := os.Mkdir(lock, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := db.Open(dir, nil)
	wantPathError(t, err, lock, syscall.EISDIR)
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if got := probe(dir); got != "open" {
		t.Error(got)
	}
}

func wantPathError(t *testing.T, err error, path string, want error) {
	t.Helper()
	var p *fs.PathError
	if !errors.As(err, &p) || p.Path != path || !errors.Is(err, want) || errors.Is(err, db.ErrLocked) {
		t.Errorf("got %v, want %s: %v", err, path, want)
	}
}

// TestLockNotPermitted: the same for a lock file of somebody else, one in a
// directory where none can be made, and a directory that may not be read.
func TestLockNotPermitted(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "another user needs root")
	}
	dir := t.TempDir()
	closeStore(t, openStore(t, dir))
	other := newChild(t, "opener")
	other.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	letThrough(t, dir)
	letThrough(t, other.cmd.Path)
	other.start()
	refused := func(path string) {
		t.Helper()
		if got := other.ask("probe " + dir); !strings.Contains(got, path+": permission denied") {
			t.Errorf("there: %s", got)
		}
	}
	lock := filepath.Join(dir, segment.LockName)
	refused(lock)
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	refused(lock)
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	refused(dir)
	other.end()
}

// TestReadOnlyNotPermitted: who may not write to a directory can read the store in it
// with and without its lock file, and beside its writer, and leaves nothing there.
func TestReadOnlyNotPermitted(t *testing.T) {
	if os.Getuid() != 0 {
		skip(t, "another user needs root")
	}
	dir := t.TempDir()
	store := openStore(t, dir)
	put(t, store, "k", "v")
	closeStore(t, store)
	store = openStore(t, dir)
	other := newChild(t, "opener")
	other.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	letThrough(t, dir)
	letThrough(t, other.cmd.Path)
	other.start()
	read := func(when string) {
		t.Helper()
		before, _ := filepath.Glob(filepath.Join(dir, "*"))
		if got := other.ask("read " + dir); got != "v" {
			t.Errorf("%s: %s", when, got)
		}
		if after, _ := filepath.Glob(filepath.Join(dir, "*")); !slices.Equal(before, after) {
			t.Errorf("%s: %q became %q", when, before, after)
		}
	}
	read("beside the writer")
	closeStore(t, store)
	read("after the writer")
	if err := os.Remove(filepath.Join(dir, segment.LockName)); err != nil {
		t.Fatal(err)
	}
	read("without a lock file")
	other.end()
}

// letThrough lets other users reach a directory, or run a file, until the test
// is over.
func letThrough(t *testing.T, path string) {
	t.Helper()
	for at := path; at != "/"; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		if err != nil {
			t.Fatal(err)
		}
		mode := info.Mode().Perm()
		if mode&0o001 != 0 {
			continue
		}
		if err := os.Chmod(at, mode|0o001); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(at, mode) })
	}
}

// TestLockReadOnlyDisk: where nothing can be written a store can be read, but not
// opened for writing, whether it has a lock file or not.
func TestLockReadOnlyDisk(t *testing.T) {
	dir := t.TempDir()
	store := openStore(t, dir)
	put(t, store, "k", "v")
	closeStore(t, store)
	places := bindMount(t, dir)
	if places == nil {
		skip(t, "can't mount")
	}
	place := places[0]
	if err := syscall.Mount("", place, "", syscall.MS_REMOUNT|syscall.MS_BIND|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := db.Open(place, nil)
		wantPathError(t, err, filepath.Join(place, segment.LockName), syscall.EROFS)
		reader, err := db.Open(place, &db.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if v, err := reader.Get(nil, []byte("k")); string(v) != "v" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		closeStore(t, reader)
		os.Remove(filepath.Join(dir, segment.LockName))
	}
}

// TestLockRace: of two processes that open a store at the same moment exactly
// one gets it, a hundred times over.
func TestLockRace(t *testing.T) {
	const stores, rounds = 5, 20
	var all sync.WaitGroup
	for range stores {
		dir := t.TempDir()
		one, two := startChild(t, "opener"), startChild(t, "opener")
		all.Go(func() {
			for range rounds {
				if err := raceOnce(dir, one, two); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

func raceOnce(dir string, racers ...*child) error {
	for _, c := range racers {
		fmt.Fprintln(c.in, "open", dir)
	}
	var winners []*child
	var said []string
	for _, c := range racers {
		line, _ := c.hear()
		if said = append(said, line); line == "open" {
			winners = append(winners, c)
		}
	}
	if len(winners) != 1 || !strings.Contains(strings.Join(said, " "), "locked") {
		return fmt.Errorf("they say %q", said)
	}
	fmt.Fprintln(winners[0].in, "close")
	if line, _ := winners[0].hear(); line != "<nil>" {
		return errors.New(line)
	}
	return nil
}
