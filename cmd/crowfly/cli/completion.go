package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish. Try: source <(crowfly completion bash)"`
}

// Help implements kong.HelpProvider.
func (completionCmd) Help() string {
	return `Examples:

  source <(crowfly completion bash)
  crowfly completion zsh > ~/.zfunc/_crowfly
  crowfly completion fish > ~/.config/fish/completions/crowfly.fish`
}

// Run writes the script from the parser's own model of the command line.
func (c *completionCmd) Run(e *env, parsed *kong.Context) error {
	commands := parsed.Model.Leaves(true)
	script := map[string]func([]*kong.Node) string{
		"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion,
	}[c.Shell]
	_, err := e.out.WriteString(script(commands))
	return err
}

// choices are the words that an argument of a command has to be one of. Where
// there are none the shells complete file names.
func choices(command *kong.Node) (words []string) {
	for _, arg := range command.Positional {
		if arg.Enum != "" {
			words = append(words, arg.EnumSlice()...)
		}
	}
	return words
}

// visibleFlags are the flags that a command takes, --help among them.
func visibleFlags(command *kong.Node) []*kong.Flag {
	return slices.Concat(command.AllFlags(true)...)
}

func bashCompletion(commands []*kong.Node) string {
	var names []string
	var cases strings.Builder
	for _, command := range commands {
		names = append(names, command.Name)
		var flags []string
		for _, flag := range visibleFlags(command) {
			flags = append(flags, "--"+flag.Name)
		}
		fmt.Fprintf(&cases, "  *:%s) flags=%q choices=%q ;;\n", command.Name,
			strings.Join(flags, " "), strings.Join(choices(command), " "))
	}
	return fmt.Sprintf(`_crowfly() {
  local cur=${COMP_WORDS[COMP_CWORD]} flags= choices=
  case $COMP_CWORD:${COMP_WORDS[1]} in
  1:*) choices=%q ;;
%s  esac
  [[ $cur != -* ]] || choices=$flags
  COMPREPLY=($(compgen -W "$choices" -- "$cur"))
}
complete -o bashdefault -o default -F _crowfly crowfly
`, strings.Join(names, " "), cases.String())
}

func zshCompletion(commands []*kong.Node) string {
	var names, cases strings.Builder
	for _, command := range commands {
		fmt.Fprintf(&names, "    %s\n", shellQuote(command.Name+":"+command.Help))
		fmt.Fprintf(&cases, "  %s) _arguments", command.Name)
		for _, flag := range visibleFlags(command) {
			spec := "--" + flag.Name
			if !flag.IsBool() {
				spec += "=:value:_files"
			}
			fmt.Fprintf(&cases, " %s", shellQuote(spec))
		}
		rest := "*:file:_files"
		if words := choices(command); len(words) > 0 {
			rest = "*:word:(" + strings.Join(words, " ") + ")"
		}
		fmt.Fprintf(&cases, " %s ;;\n", shellQuote(rest))
	}
	return fmt.Sprintf(`#compdef crowfly
_crowfly() {
  local -a commands=(
%s  )
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
%s  esac
}
if [[ $funcstack[1] == _crowfly ]]; then _crowfly "$@"; else compdef _crowfly crowfly; fi
`, names.String(), cases.String())
}

func fishCompletion(commands []*kong.Node) string {
	var script strings.Builder
	line := func(format string, args ...any) {
		fmt.Fprintf(&script, "complete -c crowfly "+format+"\n", args...)
	}
	for _, command := range commands {
		line("-n __fish_use_subcommand -f -a %s -d %s", command.Name, shellQuote(command.Help))
		within := shellQuote("__fish_seen_subcommand_from " + command.Name)
		for _, flag := range visibleFlags(command) {
			value := ""
			if !flag.IsBool() {
				value = " -r"
			}
			line("-n %s -l %s%s -d %s", within, flag.Name, value, shellQuote(flag.Help))
		}
		if words := choices(command); len(words) > 0 {
			line("-n %s -f -a %s", within, shellQuote(strings.Join(words, " ")))
		}
	}
	return script.String()
}

// shellQuote makes one word of s, in all three shells.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'"
}
