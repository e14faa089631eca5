//go:build !break_journal_sync

package faultpoint

// SkipJournalSync leaves the records of the updater's journal in memory.
const SkipJournalSync = false
