package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/crowfly/crowfly/server"
)

const (
	// tokensEnv has the tokens that a server takes, as a file of them but with
	// commas where that has line ends.
	tokensEnv = "CROWFLY_TOKENS"

	// tokenEnv has the token that a client of a server shows.
	tokenEnv = "CROWFLY_TOKEN"
)

// serverTokens are those of a file or of the environment, or nil if there is
// neither. A variable that is there and empty is an error: whoever set it wanted
// something else than a server that is open to all.
func serverTokens(file *string) (*server.Tokens, error) {
	text, set := os.LookupEnv(tokensEnv)
	switch {
	case set && file != nil:
		return nil, usageError{errors.New("there are tokens in " + tokensEnv + " and in a file: take one of them")}
	case set:
		tokens, err := server.ParseTokens(strings.ReplaceAll(text, ",", "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tokensEnv, err)
		}
		return tokens, nil
	case file != nil:
		return server.ReadTokens(*file)
	}
	return nil, nil
}
