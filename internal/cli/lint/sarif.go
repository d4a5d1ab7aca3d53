package lint

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"path/filepath"

	"github.com/kidoban/kidoban/internal/version"
)

// help is the address of a check's description.
func (c check) help() string {
	return "https://github.com/kidoban/kidoban/blob/main/docs/cli/lint.md#" + c.name
}

// The parts of SARIF 2.1.0 that are written (https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html).
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		InformationURI string      `json:"informationUri"`
		Version        string      `json:"version,omitempty"` // of a release
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string    `json:"id"`
		ShortDescription sarifText `json:"shortDescription"`
		HelpURI          string    `json:"helpUri"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
	}
)

// sarif writes the findings for the code scanning of a forge.
func (r *Report) sarif(out io.Writer) error {
	driver := sarifDriver{Name: "kubectl-kidoban lint", InformationURI: "https://github.com/kidoban/kidoban", Version: version.Version}
	for _, c := range checks {
		driver.Rules = append(driver.Rules, sarifRule{c.name, sarifText{c.about}, c.help()})
	}
	results := []sarifResult{}
	for _, f := range r.Findings {
		name := f.Object
		if f.Path != "" {
			name += ", " + f.Path
		}
		at := sarifLocation{Logical: []sarifLogical{{name}}}
		if f.File != "" && f.File != "stdin" {
			at.Physical = &sarifPhysical{sarifArtifact{filepath.ToSlash(f.File)}, sarifRegion{f.Line}}
		}
		level := map[Severity]string{Error: "error", Warning: "warning", Info: "note"}[f.Severity]
		results = append(results, sarifResult{f.Check, level, sarifText{name + ": " + f.Message + ". " + f.Fix}, []sarifLocation{at}})
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0",
		Runs:    []sarifRun{{sarifTool{driver}, results}},
	})
}

// The parts of JUnit's reports that test services read.
type (
	junitSuite struct {
		XMLName  xml.Name    `xml:"testsuite"`
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class    string         `xml:"classname,attr"`
		Name     string         `xml:"name,attr"`
		File     string         `xml:"file,attr,omitempty"`
		Failures []junitFailure `xml:"failure"`
		Out      string         `xml:"system-out,omitempty"`
	}
	junitFailure struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// junit writes a test case for each object: it fails if a finding about it does.
func (r *Report) junit(out io.Writer, fails func(Finding) bool) error {
	suite := junitSuite{Name: "kubectl kidoban lint"}
	at := map[string]int{}
	add := func(object string) *junitCase {
		i, ok := at[object]
		if !ok {
			i = len(suite.Cases)
			at[object] = i
			suite.Cases = append(suite.Cases, junitCase{Class: "lint", Name: object})
		}
		return &suite.Cases[i]
	}
	for _, o := range r.objects {
		add(o)
	}
	for _, f := range r.Findings {
		c := add(f.Object)
		c.File = f.File
		text := f.Message + "\n" + f.Fix
		if f.Path != "" {
			text = f.Path + ": " + text
		}
		if !fails(f) {
			c.Out += string(f.Severity) + ", " + f.Check + ": " + text + "\n"
			continue
		}
		if len(c.Failures) == 0 {
			suite.Failures++
		}
		c.Failures = append(c.Failures, junitFailure{f.Check, f.Message, text})
	}
	suite.Tests = len(suite.Cases)
	if _, err := io.WriteString(out, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(out)
	encoder.Indent("", "  ")
	if err := encoder.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(out, "\n")
	return err
}
