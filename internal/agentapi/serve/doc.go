// Package serve answers the agent's API (internal/agentapi) over HTTP. It reads and changes nothing.
package serve
