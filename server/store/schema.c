/*
 * The tables, as steps: step n makes a database of schema n out of one of schema n - 1.  A new one
 * goes through all of them, so that it is the same as one that was upgraded; a step that was
 * released is never changed.
 *
 * Integer keys rise, so that inserting appends; each further unique index on something that does
 * not rise costs a random page a row.
 *
 *     meta        schema, bsm_id, epoch, key (SubjectPublicKeyInfo of the checkpoint key),
 *                 key-ed25519 (of the one that signs beside it), key-retired-1 ... (of those that
 *                 signed before, of either kind, oldest first),
 *                 clean (1: the log ended with log.stopped under a committed checkpoint),
 *                 config (hash of the configuration file, as the newest log.started says),
 *                 purge (1: there may be exports of retired KEKs, which are to be removed)
 *     leaf        the audit records: the octets that are hashed, by seq
 *     checkpoint  signed notes, by size, each with the compact range of its tree
 *     content     ContentIDs.  tek: their keys, wrapped under a storage KEK.
 *     export      a TEK as wrapped for a BSA
 *     message     which answer a MessageID of a BSA got
 *     kek bsa bsa_cert bsa_entitle   what is enrolled
 *
 * With schema 2 (and kek.added_us: when a KEK was added):
 *
 *     holder      which BSA was given a TEK of which content, and which one first
 *     delivery    key deliveries; delivery_message: the octets that are sent, in pages of their own
 *                 that are free again when a delivery has ended.  delivery_count: how many are in
 *                 each state, kept by triggers.
 *     fanout      new TEKs on their way to their holders
 *
 * MessageIDs of deliveries rise.  What is asked all the time is asked of open deliveries: the
 * indexes for it hold nothing else and stay small, however many there were (state < 4 is
 * store_delivery_is_open(), 4 is CONFIRMED).
 */
#include "driver.h"

static const char schema_1[] =
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
    " retired INTEGER NOT NULL, bsa INTEGER NOT NULL, version INTEGER NOT NULL) STRICT;"
    "CREATE INDEX kek_of_bsa ON kek (bsa, version);"
    "CREATE TABLE bsa (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL,"
    " key_info INTEGER NOT NULL, media INTEGER NOT NULL, form INTEGER NOT NULL, url TEXT NOT NULL,"
    " ca_pem TEXT) STRICT;"
    "CREATE TABLE bsa_cert (sha256 BLOB PRIMARY KEY, bsa INTEGER NOT NULL,"
    " position INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX bsa_cert_of_bsa ON bsa_cert (bsa, position);"
    "CREATE TABLE bsa_entitle (bsa INTEGER NOT NULL, position INTEGER NOT NULL,"
    " pattern TEXT NOT NULL, PRIMARY KEY (bsa, position)) STRICT, WITHOUT ROWID;";

static const char schema_2[] =
    "ALTER TABLE kek ADD COLUMN added_us INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE holder (content INTEGER NOT NULL, bsa INTEGER NOT NULL, tek INTEGER NOT NULL,"
    " PRIMARY KEY (content, bsa)) STRICT, WITHOUT ROWID;"
    "INSERT INTO holder SELECT tek.content, kek.bsa, min(tek.row) FROM export"
    " JOIN tek ON tek.row = export.tek JOIN kek ON kek.row = export.kek"
    " WHERE kek.bsa <> 0 GROUP BY tek.content, kek.bsa;"
    "CREATE INDEX content_periodic ON content (row) WHERE period_s > 0;"
    "CREATE TABLE delivery (row INTEGER PRIMARY KEY, mid TEXT NOT NULL UNIQUE,"
    " bsa INTEGER NOT NULL, content INTEGER NOT NULL, tek INTEGER NOT NULL, kek INTEGER NOT NULL,"
    " media INTEGER NOT NULL, state INTEGER NOT NULL, attempts INTEGER NOT NULL,"
    " created_us INTEGER NOT NULL, next_us INTEGER NOT NULL, deadline_us INTEGER NOT NULL,"
    " seq INTEGER NOT NULL, epoch INTEGER NOT NULL, confirmed_seq INTEGER NOT NULL,"
    " out_sha256 BLOB NOT NULL, why TEXT NOT NULL) STRICT;"
    "CREATE INDEX delivery_open ON delivery (row) WHERE state < 4;"
    "CREATE INDEX delivery_of_bsa ON delivery (bsa, row, next_us, deadline_us) WHERE state < 4;"
    "CREATE INDEX delivery_deadline ON delivery (deadline_us) WHERE state < 4;"
    "CREATE INDEX delivery_confirmed ON delivery (confirmed_seq) WHERE state = 4;"
    "CREATE TABLE delivery_message (delivery INTEGER PRIMARY KEY, octets BLOB NOT NULL) STRICT;"
    "CREATE TABLE delivery_count (state INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;"
    "INSERT INTO delivery_count VALUES (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0);"
    "CREATE TRIGGER delivery_inserted AFTER INSERT ON delivery BEGIN"
    " UPDATE delivery_count SET n = n + 1 WHERE state = NEW.state; END;"
    "CREATE TRIGGER delivery_deleted AFTER DELETE ON delivery BEGIN"
    " UPDATE delivery_count SET n = n - 1 WHERE state = OLD.state; END;"
    "CREATE TRIGGER delivery_changed AFTER UPDATE OF state ON delivery"
    " WHEN OLD.state <> NEW.state BEGIN"
    " UPDATE delivery_count SET n = n - 1 WHERE state = OLD.state;"
    " UPDATE delivery_count SET n = n + 1 WHERE state = NEW.state; END;"
    "CREATE TABLE fanout (row INTEGER PRIMARY KEY, tek INTEGER NOT NULL UNIQUE,"
    " content INTEGER NOT NULL, after_bsa INTEGER NOT NULL) STRICT;";

const char *const schema_sqlite[SCHEMA] = {schema_1, schema_2};

static const char *const texts[DB_STATEMENT_COUNT] = {
#define STATEMENT(name, text) [DB_##name] = (text),
#include "statements.def"
#undef STATEMENT
};

const char *db_statement_text(enum db_statement id)
{
    return texts[id];
}
