// Command docs runs the commands that the project's Markdown pages show, and its tests check the links between the pages.
//
// A fenced block whose language is sh is run if a word after that says where:
//
//	```sh offline          needs no cluster: `go test` runs it, with a kubectl that knows `kubectl kidoban` alone
//	```sh cluster          is run on the cluster of the end-to-end tests, which have kidoban and examples/shop on it
//	```sh observer         is run there while the observer is installed and the shop's pods talk: TestReplayAndRecommend
//	```sh offline exit=1   ends with this status
//	```sh observer until=http://   does not end: it is interrupted once it has printed this
//
// Each block is a bash script of its own, run in the root of the repository. All blocks of a page run in their order, pages in
// that of their paths; a page cleans up after itself. If the next block's language is "text output", it is what the script prints:
// runs of blanks count as one, and … stands for anything.
//
//	docs --kind=cluster           runs the blocks of this kind, where kubectl points to
//	docs --kind=observer --step   waits for a line on standard input before each section, so that something can happen between them
package main
