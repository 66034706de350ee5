package cli

import (
	"context"
	"io"

	"github.com/crowfly/crowfly/db"
)

// outputPiece is how much of a value is verified and written at a time.
const outputPiece = 4 << 20

// span is a part of a value.
type span struct{ off, n int64 }

// writeValue writes a part of a value from the mapping, piece by piece.
func writeValue(ctx context.Context, w io.Writer, v *db.Value, part span, passed func(n int64)) error {
	for end := part.off + part.n; part.off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		piece, err := v.Range(part.off, min(outputPiece, end-part.off))
		if err != nil {
			return err
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		part.off += int64(len(piece))
		passed(int64(len(piece)))
	}
	return nil
}
