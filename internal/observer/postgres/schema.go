package postgres

import "fmt"

// Version of the schema. A store with a later one is an error.
const schemaVersion = 1

// Numbers of advisory locks: of pushes (shared) and of changes of parts (exclusive), of retention, and of the schema's creation.
const (
	lockParts  = 0x6b69646f0001
	lockRetain = 0x6b69646f0002
	lockSchema = 0x6b69646f0003
)

// schema is what there is once. Spans are numbers of ten seconds since 1970. All other times are Unix milliseconds.
const schema = `
CREATE TABLE IF NOT EXISTS kidoban_schema (version int NOT NULL);
CREATE TABLE IF NOT EXISTS kidoban_parts (
	id bigint PRIMARY KEY,
	started bigint NOT NULL, -- the first push, in Unix seconds
	state text NOT NULL,
	first int,               -- span of the oldest report and of the newest; null: none, or the part is open
	last int,
	reports bigint NOT NULL DEFAULT 0, -- that are summed up
	watermark xid8 NOT NULL DEFAULT '0' -- rows of transactions below it are summed up
);
CREATE TABLE IF NOT EXISTS kidoban_batches (
	node text NOT NULL,
	generation text NOT NULL,
	sequences int8multirange NOT NULL,
	first bigint NOT NULL,
	last bigint NOT NULL,
	PRIMARY KEY (node, generation)
);
CREATE TABLE IF NOT EXISTS kidoban_losses (
	node text NOT NULL,
	reason text NOT NULL,
	minute bigint NOT NULL,
	first bigint NOT NULL,
	last bigint NOT NULL,
	packets bigint NOT NULL,
	records bigint NOT NULL,
	PRIMARY KEY (node, reason, minute)
);
`

// States of a part.
const (
	stateOpen   = "open"   // is pushed to
	stateClosed = "closed" // is not, and is to be summed up to its end
	stateReady  = "ready"  // is summed up
	stateRolled = "rolled" // has no exact table, and sums of hours
)

// Tables of a part.
const (
	tableExact = "exact"
	tableSums  = "sums"
	tableNames = "names"
)

// table is the name of a part's table.
func table(kind string, part int64) string { return fmt.Sprintf("kidoban_%s_%d", kind, part) }

// columns that exact and sums share, in the order in which rows are read. first and last are milliseconds after the span.
const columns = "span, source, destination, decision, service, protocol, port, flags, connections, bytes, first, last"

const columnTypes = `source bigint NOT NULL, destination bigint NOT NULL, decision bigint NOT NULL, service bigint NOT NULL,
	connections bigint NOT NULL, bytes bigint NOT NULL, span int NOT NULL, first int NOT NULL, last int NOT NULL, port int NOT NULL,
	flags smallint NOT NULL, protocol text NOT NULL`

// createPart makes a part's tables.
func createPart(id int64) []string {
	exact, names := table(tableExact, id), table(tableNames, id)
	return []string{
		"CREATE TABLE " + exact + " (tx xid8 NOT NULL DEFAULT pg_current_xact_id(), " + columnTypes + ")",
		"CREATE INDEX ON " + exact + " (span)",
		"CREATE INDEX ON " + exact + " (tx)",
		"CREATE TABLE " + table(tableSums, id) + " (" + columnTypes + ")",
		"CREATE TABLE " + names + ` (id bigint PRIMARY KEY, kind text NOT NULL, summary bigint NOT NULL, namespace text NOT NULL,
			workload text NOT NULL, text text NOT NULL)`,
	}
}

// perMinute and perHour are how many spans a sum's span has.
const (
	perMinute = 6
	perHour   = 360
)

// summed is a query for rows of a part's exact table, summed up by workload and minute.
func summed(id int64, where string) string {
	return fmt.Sprintf(`SELECT (e.span - e.span %% %[1]d)::int AS span, s.summary AS source, d.summary AS destination, e.decision, e.service,
		e.protocol, e.port, e.flags, %[2]s AS connections, %[3]s AS bytes,
		min(e.first::bigint + e.span %% %[1]d * 10000)::int AS first, max(least(e.last::bigint + e.span %% %[1]d * 10000, 2147483647))::int AS last
		FROM %[4]s e JOIN %[5]s s ON s.id = e.source JOIN %[5]s d ON d.id = e.destination
		WHERE %[6]s GROUP BY 1, 2, 3, 4, 5, 6, 7, 8`,
		perMinute, total("e.connections"), total("e.bytes"), table(tableExact, id), table(tableNames, id), where)
}

// hourly is a query for a part's sums, summed up by hour.
func hourly(id int64) string {
	return fmt.Sprintf(`SELECT (span - span %% %[1]d)::int AS span, source, destination, decision, service, protocol, port, flags,
		%[2]s AS connections, %[3]s AS bytes,
		min(first::bigint + span %% %[1]d * 10000)::int AS first, max(least(last::bigint + span %% %[1]d * 10000, 2147483647))::int AS last
		FROM %[4]s GROUP BY 1, 2, 3, 4, 5, 6, 7, 8`, perHour, total("connections"), total("bytes"), table(tableSums, id))
}

// total is a sum that does not fail: what agents count has no bound.
func total(column string) string { return "least(sum(" + column + "), 9223372036854775807)::bigint" }
