package command

import "strings"

// Markdown is a text in a cell of a table as GitHub and GitLab show it (https://github.github.com/gfm, tables). Links and HTML in it stay text.
func Markdown(s string) string {
	return markdown.Replace(s)
}

var markdown = strings.NewReplacer("\\", "\\\\", "|", "\\|", "&", "&amp;", "<", "&lt;", ">", "&gt;", "`", "\\`", "*", "\\*",
	"[", "\\[", "]", "\\]", "~", "\\~", "://", ":\\//", "www.", "www\\.", "\n", " ")
