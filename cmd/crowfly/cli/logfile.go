package cli

import (
	"io"
	"os"
	"sync"
)

// logFile is where a server writes its log: a file that can be opened anew, when
// it was moved to rotate it, or standard error.
type logFile struct {
	name *string // nil for standard error

	mu   sync.Mutex
	to   io.Writer
	file *os.File
}

func openLog(name *string, otherwise io.Writer) (*logFile, error) {
	l := &logFile{name: name, to: otherwise}
	return l, l.reopen()
}

// reopen opens the file by its name. After an error the log goes where it went.
func (l *logFile) reopen() error {
	if l.name == nil {
		return nil
	}
	f, err := os.OpenFile(*l.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.file
	l.to, l.file = f, f
	if before != nil {
		return before.Close()
	}
	return nil
}

// Write implements [io.Writer].
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to.Write(p)
}

// Close implements [io.Closer].
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
