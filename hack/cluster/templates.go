package main

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"net/netip"
	"text/template"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*"))

// render fills in one of the files in templates/.
func render(name string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// renderKubeconfig makes a kubeconfig that holds its certificates. It is of use in
// the network namespaces of the control plane and of the nodes.
func renderKubeconfig(cluster string, server netip.Addr, user string, ca, cert, key []byte) ([]byte, error) {
	encode := base64.StdEncoding.EncodeToString
	return render("kubeconfig.yaml", map[string]string{
		"Cluster":     cluster,
		"Server":      fmt.Sprintf("https://%s", netip.AddrPortFrom(server, apiPort)),
		"User":        user,
		"CA":          encode(ca),
		"Certificate": encode(cert),
		"Key":         encode(key),
	})
}
