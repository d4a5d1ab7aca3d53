// Package sqlite is the store of an observer in files of its own, by SQLite.
//
// A partition is a file with what was pushed in about an hour, whatever times it is about: so a batch and the note that it
// is stored are in one transaction. Retention deletes files. A partition that is written has three tables: exact (one row
// for each report and Exact span), minutes (summed up by workload, for five at a time), and hours (the same, made when the partition is
// closed). It is rolled up by copying the hours and what they refer to into a new file.
//
// Ends, decisions and Services are numbers that a partition's own dictionary explains.
package sqlite
