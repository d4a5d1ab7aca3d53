// Command hello is what the cluster's tests run in pods.
//
//	hello serve ADDRESS    answer every HTTP request with the host's name
//	hello get URL          print what a server answers
//	hello bpf DIR          make a BPF map and pin it below DIR, a bpffs
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("want a verb and its argument, have %q", os.Args[1:]))
	}
	verbs := map[string]func(string) error{"serve": serve, "get": get, "bpf": pinMap}
	verb, ok := verbs[os.Args[1]]
	if !ok {
		fail(fmt.Errorf("no verb %q", os.Args[1]))
	}
	if err := verb(os.Args[2]); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "hello: %v\n", err)
	os.Exit(1)
}

func serve(address string) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Printf("%s serves on %s\n", host, address)
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, host)
	}))
}

func get(url string) error {
	client := http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext},
	}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// pinMap needs what an agent needs: CAP_BPF, and the node's bpffs.
func pinMap(dir string) error {
	create := struct{ mapType, keySize, valueSize, maxEntries, flags uint32 }{unix.BPF_MAP_TYPE_HASH, 4, 4, 1, 0}
	fd, err := bpf(unix.BPF_MAP_CREATE, unsafe.Pointer(&create), unsafe.Sizeof(create))
	if err != nil {
		return fmt.Errorf("make a map: %w", err)
	}
	path, err := unix.BytePtrFromString(filepath.Join(dir, fmt.Sprintf("hello-%d", time.Now().UnixNano())))
	if err != nil {
		return err
	}
	pin := struct {
		path *byte
		fd   uint32
		_    uint32
	}{path: path, fd: uint32(fd)}
	if _, err := bpf(unix.BPF_OBJ_PIN, unsafe.Pointer(&pin), unsafe.Sizeof(pin)); err != nil {
		return fmt.Errorf("pin it below %s: %w", dir, err)
	}
	fmt.Println("pinned")
	return nil
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}
