// Package sink brings lines to where operators read them: a file, stdout, CloudWatch Logs, a server that takes them by HTTP.
//
// What writes lines never waits for a sink. One that is slow or away costs lines, which are counted, and nothing else.
package sink
