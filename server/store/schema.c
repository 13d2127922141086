/*
 * The tables.  Integer keys rise, so that inserting appends; each further unique index on something
 * that does not rise costs a random page a row.
 *
 *     meta        schema, bsm_id, epoch, key (SubjectPublicKeyInfo of the checkpoint key),
 *                 clean (1: the log ended with log.stopped under a committed checkpoint),
 *                 purge (1: there may be exports of retired KEKs, which are to be removed)
 *     leaf        the audit records: the octets that are hashed, by seq
 *     checkpoint  signed notes, by size, each with the compact range of its tree
 *     content     ContentIDs.  tek: their keys, wrapped under a storage KEK.
 *     export      a TEK as wrapped for a BSA
 *     message     which answer a MessageID of a BSA got
 *     kek bsa bsa_cert bsa_entitle   what is enrolled
 *
 * Version 2 of the schema knows when a KEK was added (kek.added_us).
 */
#include "driver.h"

const char schema_sqlite[] =
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE TABLE leaf (seq INTEGER PRIMARY KEY, octets BLOB NOT NULL) STRICT;"
    "CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, note BLOB NOT NULL, range BLOB NOT NULL)"
    " STRICT;"
    "CREATE TABLE content (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
    " bits INTEGER NOT NULL, period_s INTEGER NOT NULL, lead_s INTEGER NOT NULL,"
    " epoch_us INTEGER NOT NULL, created_us INTEGER NOT NULL, created_by INTEGER NOT NULL) STRICT;"
    "CREATE TABLE tek (row INTEGER PRIMARY KEY, key_id BLOB NOT NULL UNIQUE,"
    " content INTEGER NOT NULL, period INTEGER NOT NULL, version INTEGER NOT NULL,"
    " bits INTEGER NOT NULL, storage_kek INTEGER NOT NULL, stored BLOB NOT NULL,"
    " created_us INTEGER NOT NULL, destroyed INTEGER NOT NULL,"
    " UNIQUE (content, period, version)) STRICT;"
    "CREATE TABLE export (tek INTEGER NOT NULL, kek INTEGER NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY (tek, kek)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE message (bsa INTEGER NOT NULL, id TEXT NOT NULL, content INTEGER NOT NULL,"
    " period_asked INTEGER NOT NULL, tek INTEGER NOT NULL, kek INTEGER NOT NULL,"
    " time_us INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (bsa, id))"
    " STRICT, WITHOUT ROWID;"
    "CREATE TABLE kek (row INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " fingerprint BLOB NOT NULL UNIQUE, label TEXT NOT NULL, id BLOB NOT NULL,"
    " wrap INTEGER NOT NULL, use INTEGER NOT NULL, imported INTEGER NOT NULL,"
    " retired INTEGER NOT NULL, bsa INTEGER NOT NULL, version INTEGER NOT NULL,"
    " added_us INTEGER NOT NULL) STRICT;"
    "CREATE INDEX kek_of_bsa ON kek (bsa, version);"
    "CREATE TABLE bsa (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL,"
    " key_info INTEGER NOT NULL, media INTEGER NOT NULL, form INTEGER NOT NULL, url TEXT NOT NULL,"
    " ca_pem TEXT) STRICT;"
    "CREATE TABLE bsa_cert (sha256 BLOB PRIMARY KEY, bsa INTEGER NOT NULL,"
    " position INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX bsa_cert_of_bsa ON bsa_cert (bsa, position);"
    "CREATE TABLE bsa_entitle (bsa INTEGER NOT NULL, position INTEGER NOT NULL,"
    " pattern TEXT NOT NULL, PRIMARY KEY (bsa, position)) STRICT, WITHOUT ROWID;";

const char *const schema_sqlite_steps[SCHEMA_VERSION - 1] = {
    "ALTER TABLE kek ADD COLUMN added_us INTEGER NOT NULL DEFAULT 0;",
};

static const char *const texts[DB_STATEMENT_COUNT] = {
#define STATEMENT(name, text) [DB_##name] = (text),
#include "statements.def"
#undef STATEMENT
};

const char *db_statement_text(enum db_statement id)
{
    return texts[id];
}
