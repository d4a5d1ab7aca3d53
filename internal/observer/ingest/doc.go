// Package ingest takes records from agents: it checks who pushes, corrects their clocks, names both ends, and stores what comes,
// before it confirms it. What it cannot store is not confirmed, so the agent keeps it or counts it as lost.
package ingest
