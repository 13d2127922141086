/*
 * What was found, for people and for programs.  Text that stood in the export is escaped: as
 * tekd/escape.h has it on a terminal and in CSV, as JSON wants it there.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tek-audit.h"
#include "tekd/enc.h"
#include "tekd/escape.h"

/* One character, of n octets; 0: an octet that is none, which stands as in the text form. */
static void put_json_char(FILE *out, const char *s, size_t n)
{
    uint8_t c = (uint8_t)*s;

    if (n == 0)
        (void)fprintf(out, "\\\\x%02x", c);
    else if (c < ' ' || c == 0x7f)
        (void)fprintf(out, "\\u%04x", c);
    else if (c == '"' || c == '\\')
        (void)fprintf(out, "\\%c", c);
    else
        (void)fwrite(s, 1, n, out);
}

static void put_json(FILE *out, const char *s)
{
    size_t len = strlen(s);
    uint32_t code;

    (void)fputc('"', out);
    while (len > 0) {
        size_t n = utf8_read(s, len, &code);

        put_json_char(out, s, n);
        n = n > 0 ? n : 1;
        s += n;
        len -= n;
    }
    (void)fputc('"', out);
}

static void key_text(const struct audit *a, size_t i, char out[static 9])
{
    uint8_t id[4] = {0};

    if (i < a->n_trusted && note_key_id(a->checkpoint.origin, a->trusted[i].key, id) == 0)
        enc_hex(id, sizeof id, out);
    else
        memcpy(out, "none", 5);
}

/* "key 1a2b3c4d", or several: those of --key and who took their place. */
static void text_keys(const struct audit *a, FILE *out)
{
    char key[9];

    (void)fputs(a->n_trusted > 1 ? "keys" : "key", out);
    for (size_t i = 0; i == 0 || i < a->n_trusted; i++) {
        key_text(a, i, key);
        (void)fprintf(out, " %s", key);
    }
}

static void json_keys(const struct audit *a, FILE *out)
{
    char key[9];

    key_text(a, 0, key);
    (void)fprintf(out, ",\"key\":\"%s\",\"keys\":[", key);
    for (size_t i = 0; i < a->n_trusted; i++) {
        key_text(a, i, key);
        (void)fprintf(out, "%s\"%s\"", i > 0 ? "," : "", key);
    }
    (void)fputc(']', out);
}

void report_failures(const struct audit *a, FILE *out)
{
    for (size_t i = 0; i < a->n_failures; i++) {
        const struct failure *f = &a->failure[i];

        (void)fputs("FAILED ", out);
        (void)escape_plain(out, f->where);
        (void)fprintf(out, ": %s: ", f->check);
        (void)escape_plain(out, f->text);
        (void)fputc('\n', out);
    }
    if (a->more_failures > 0)
        (void)fprintf(out, "FAILED and %zu more\n", a->more_failures);
}

static void text_spans(const struct audit *a, FILE *out)
{
    for (size_t i = 0; i < a->outages.n; i++) {
        const struct span *s = &a->outages.span[i];

        (void)fprintf(out,
                      "outage: %" PRId64 " s between records %" PRIu64 " and %" PRIu64 " (%s)\n",
                      s->seconds, s->from, s->to, s->why);
    }
    for (size_t i = 0; i < a->recovered.n; i++) {
        const struct span *s = &a->recovered.span[i];

        (void)fprintf(out, "unattested: records %" PRIu64 " to %" PRIu64 "\n", s->from, s->to);
    }
}

/* "release: signed (2 starts), durable (1 start); …": what the instances promised. */
static void text_release(const struct audit *a, FILE *out)
{
    const char *before = "";

    (void)fputs("release: ", out);
    for (enum release k = RELEASE_UNKNOWN; k < RELEASE_COUNT; k++) {
        uint64_t n = a->counts.starts[k];

        if (n == 0)
            continue;
        (void)fprintf(out, "%s%s (%" PRIu64 " start%s)", before, release_name[k], n,
                      n == 1 ? "" : "s");
        before = ", ";
    }
    if (before[0] == '\0') /* nobody started in it */
        (void)fputs(release_name[RELEASE_UNKNOWN], out);
    (void)fprintf(out, "; keys that left before a checkpoint covered their record: %" PRIu64 "\n",
                  a->counts.early);
}

/* What somebody else signed over notes of the log. */
struct attested {
    const char *name, *json_name, *option;
    const struct stamp *stamp;
    size_t n;
    bool verified; /* by the option */
};

static struct attested stamps_of(const struct audit *a)
{
    return (struct attested){"time stamps", "timestamps", "--tsa",
                             a->stamp,      a->n_stamps,  a->tsa != NULL};
}

static struct attested cosigned_of(const struct audit *a)
{
    return (struct attested){"cosignatures", "cosignatures", "--witness",
                             a->cosigned,    a->n_cosigned,  a->n_witnesses > 0};
}

/* Over the most records; NULL: there is none. */
static const struct stamp *largest_stamp(const struct attested *t)
{
    const struct stamp *found = NULL;

    for (size_t i = 0; i < t->n; i++)
        if (!found || t->stamp[i].size > found->size)
            found = &t->stamp[i];
    return found;
}

static void text_attested(struct attested t, FILE *out)
{
    const struct stamp *s = largest_stamp(&t);
    char time[ENC_TIME_LEN + 1];

    if (!s && !t.verified)
        return;
    (void)fprintf(out, "%s: %zu", t.name, t.n);
    if (s) {
        enc_time(s->utc_us, time);
        (void)fprintf(out, ", the newest of %s over size %" PRIu64, time, s->size);
    }
    if (t.verified)
        (void)fputs("; their signatures are good\n", out);
    else
        (void)fprintf(out, "; without %s their signatures were not looked at\n", t.option);
}

static void text_verify(const struct audit *a, FILE *out)
{
    const struct counts *c = &a->counts;
    char root[ENC_BASE64_LEN(MERKLE_HASH_LEN) + 1];

    enc_base64(a->checkpoint.root.octets, MERKLE_HASH_LEN, root);
    (void)fprintf(out, "verified %" PRIu64 " records under checkpoint size %" PRIu64 ", ",
                  a->range.size, a->checkpoint.size);
    text_keys(a, out);
    (void)fprintf(out, ", %" PRIu64 " messages answered, %" PRIu64 " unattested\n", c->answered,
                  c->unattested);
    (void)fputs("origin: ", out);
    (void)escape_plain(out, a->checkpoint.origin);
    (void)fprintf(out, "\nroot: %s\n", root);
    (void)fprintf(out,
                  "pull: %" PRIu64 " answered, %" PRIu64 " sent, %" PRIu64 " repeated, %" PRIu64
                  " refused\n",
                  c->answered, c->sent, c->repeated, c->refused);
    (void)fprintf(out,
                  "push: %" PRIu64 " prepared, %" PRIu64 " confirmed, %" PRIu64 " pending (%" PRIu64
                  " of them confirmed by an unattested record only)\n",
                  c->prepared, c->confirmed, c->pending, c->doubtful);
    (void)fprintf(out,
                  "keys: %" PRIu64 " generated; strangers refused: %" PRIu64
                  "; records that could not be written: %" PRIu64 "\n",
                  c->teks, c->strangers, c->gaps);
    text_release(a, out);
    text_attested(stamps_of(a), out);
    text_attested(cosigned_of(a), out);
    text_spans(a, out);
}

static void json_spans(const char *name, const struct spans *s, FILE *out)
{
    (void)fprintf(out, ",\"%s\":[", name);
    for (size_t i = 0; i < s->n; i++)
        (void)fprintf(
            out,
            "%s{\"from\":%" PRIu64 ",\"to\":%" PRIu64 ",\"why\":\"%s\",\"seconds\":%" PRId64 "}",
            i > 0 ? "," : "", s->span[i].from, s->span[i].to, s->span[i].why, s->span[i].seconds);
    (void)fputc(']', out);
}

static void json_release(const struct audit *a, FILE *out)
{
    (void)fputs(",\"release\":{", out);
    for (enum release k = RELEASE_UNKNOWN; k < RELEASE_COUNT; k++)
        (void)fprintf(out, "%s\"%s\":%" PRIu64, k > RELEASE_UNKNOWN ? "," : "", release_name[k],
                      a->counts.starts[k]);
    (void)fputc('}', out);
}

static void json_attested(struct attested t, FILE *out)
{
    char time[ENC_TIME_LEN + 1];

    (void)fprintf(out, ",\"%s_signed\":%s,\"%s\":[", t.json_name, t.verified ? "true" : "false",
                  t.json_name);
    for (size_t i = 0; i < t.n; i++) {
        enc_time(t.stamp[i].utc_us, time);
        (void)fprintf(out, "%s{\"size\":%" PRIu64 ",\"time\":\"%s\",\"file\":", i > 0 ? "," : "",
                      t.stamp[i].size, time);
        put_json(out, t.stamp[i].where);
        (void)fputc('}', out);
    }
    (void)fputc(']', out);
}

static void json_failures(const struct audit *a, FILE *out)
{
    (void)fputs(",\"failures\":[", out);
    for (size_t i = 0; i < a->n_failures; i++) {
        const struct failure *f = &a->failure[i];

        (void)fprintf(out, "%s{\"where\":", i > 0 ? "," : "");
        put_json(out, f->where);
        (void)fprintf(out, ",\"check\":\"%s\",\"text\":", f->check);
        put_json(out, f->text);
        (void)fputc('}', out);
    }
    (void)fprintf(out, "],\"failures_more\":%zu", a->more_failures);
}

static void json_verify(const struct audit *a, FILE *out)
{
    const struct counts *c = &a->counts;
    char root[ENC_BASE64_LEN(MERKLE_HASH_LEN) + 1];

    enc_base64(a->checkpoint.root.octets, MERKLE_HASH_LEN, root);
    (void)fprintf(out, "{\"verified\":%s,\"origin\":", a->n_failures == 0 ? "true" : "false");
    put_json(out, a->checkpoint.origin);
    (void)fprintf(out,
                  ",\"size\":%" PRIu64 ",\"root\":\"%s\",\"records\":%" PRIu64
                  ",\"answered\":%" PRIu64 ",\"sent\":%" PRIu64 ",\"sent_early\":%" PRIu64
                  ",\"repeated\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"prepared\":%" PRIu64
                  ",\"confirmed\":%" PRIu64 ",\"pending\":%" PRIu64
                  ",\"confirmed_unattested\":%" PRIu64 ",\"teks\":%" PRIu64
                  ",\"strangers\":%" PRIu64 ",\"not_recorded\":%" PRIu64 ",\"unattested\":%" PRIu64,
                  a->checkpoint.size, root, a->range.size, c->answered, c->sent, c->early,
                  c->repeated, c->refused, c->prepared, c->confirmed, c->pending, c->doubtful,
                  c->teks, c->strangers, c->gaps, c->unattested);
    json_keys(a, out);
    json_release(a, out);
    json_spans("recovered", &a->recovered, out);
    json_spans("outages", &a->outages, out);
    json_attested(stamps_of(a), out);
    json_attested(cosigned_of(a), out);
    json_failures(a, out);
    (void)fputs("}\n", out);
}

void report_verify(const struct audit *a, enum report_form form, FILE *out)
{
    if (form == REPORT_JSON)
        json_verify(a, out);
    else
        text_verify(a, out);
}

/* ---- the ledger ---- */

static const char *const state_name[] = {
    [STATE_NONE] = "",
    [STATE_ANSWERED] = "answered",
    [STATE_SENT] = "sent",
    [STATE_PREPARED] = "prepared",
    [STATE_IN_FLIGHT] = "in-flight",
    [STATE_CONFIRMED] = "confirmed",
    [STATE_REJECTED] = "rejected",
    [STATE_UNCONFIRMED] = "unconfirmed",
    [STATE_ABANDONED] = "abandoned",
    [STATE_UNKNOWN] = "unknown",
};

/*
 * A row of the ledger: columns of text (s), of times and numbers (t, n: absent where there is none)
 * and of true or false (b).  The repeats of an answer, the attempts of a delivery.
 */
enum { COLUMN_PEER = 1, COLUMN_CONTENT = 4, COLUMNS = 14 };
static const char *const column_name[COLUMNS] = {
    "message_id", "peer", "direction", "state",   "content_id", "key_id",    "kek_id",
    "time",       "done", "seq",       "repeats", "attempts",   "confirmed", "attested"};
static const char column_type[COLUMNS + 1] = "sssssssstnnnnb";

struct row {
    const char *value[COLUMNS];
    char time[ENC_TIME_LEN + 1], done[ENC_TIME_LEN + 1];
    char seq[24];
    char repeats[16], attempts[16];
    char confirmed[24];
};

/* Of a delivery both its preparation and, if it has one, its confirmation. */
static bool row_attested(const struct audit *a, const struct message *m)
{
    return is_attested(a, m->seq) && (m->confirmed == NONE || is_attested(a, m->confirmed));
}

static void row_numbers(const struct message *m, struct row *row)
{
    bool push = m->dir == DIR_PUSH;

    (void)snprintf(row->seq, sizeof row->seq, "%" PRIu64, m->seq);
    (void)snprintf(row->repeats, sizeof row->repeats, "%" PRIu32, push ? 0 : m->repeats);
    (void)snprintf(row->attempts, sizeof row->attempts, "%" PRIu32, push ? m->repeats : 0);
    row->confirmed[0] = '\0';
    if (m->confirmed != NONE)
        (void)snprintf(row->confirmed, sizeof row->confirmed, "%" PRIu64, m->confirmed);
}

static void row_fill(const struct audit *a, uint32_t id, struct row *row)
{
    const struct message *m = &a->message[id];
    const struct tek *t = &a->tek[m->tek];
    const char *peer = pool_text(a->messages, id);

    enc_time(m->t_us, row->time);
    row->done[0] = '\0';
    if (m->done_us != 0 && state_of(a, m) != STATE_UNKNOWN)
        enc_time(m->done_us, row->done);
    row_numbers(m, row);
    const char *const values[COLUMNS] = {peer + strlen(peer) + 1,
                                         peer,
                                         m->dir == DIR_PUSH ? "push" : "pull",
                                         state_name[state_of(a, m)],
                                         pool_text(a->contents, t->content),
                                         pool_text(a->teks, m->tek),
                                         pool_text(a->keks, m->kek),
                                         row->time,
                                         row->done,
                                         row->seq,
                                         row->repeats,
                                         row->attempts,
                                         row->confirmed,
                                         row_attested(a, m) ? "true" : "false"};
    memcpy(row->value, values, sizeof values);
}

static void row_text(const struct row *row, FILE *out)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        (void)escape_plain(out, row->value[i]);
        (void)fputc(i + 1 < COLUMNS ? '\t' : '\n', out);
    }
}

static void row_csv(const struct row *row, FILE *out)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        escape_csv(out, row->value[i]);
        (void)fputs(i + 1 < COLUMNS ? "," : "\r\n", out);
    }
}

static void row_json(const struct row *row, FILE *out)
{
    for (size_t i = 0; i < COLUMNS; i++) {
        (void)fprintf(out, "%c\"%s\":", i == 0 ? '{' : ',', column_name[i]);
        if (column_type[i] == 's' || (column_type[i] == 't' && row->value[i][0]))
            put_json(out, row->value[i]);
        else
            (void)fputs(row->value[i][0] ? row->value[i] : "null", out);
    }
    (void)fputc('}', out);
}

static void heading(enum report_form form, FILE *out)
{
    for (size_t i = 0; i < COLUMNS && form != REPORT_JSON; i++) {
        (void)fputs(column_name[i], out);
        if (i + 1 < COLUMNS)
            (void)fputc(form == REPORT_CSV ? ',' : '\t', out);
        else
            (void)fputs(form == REPORT_CSV ? "\r\n" : "\n", out);
    }
}

static bool is_wanted(const struct audit *a, uint32_t id, const struct ledger_wanted *wanted,
                      const struct row *row)
{
    const struct ledger_line line = {.bsa = row->value[COLUMN_PEER],
                                     .content = row->value[COLUMN_CONTENT],
                                     .time = row->time,
                                     .pending = a->message[id].dir == DIR_PUSH &&
                                                is_pending(state_of(a, &a->message[id]))};

    return !wanted || ledger_wants(wanted, &line);
}

static void put_row(const struct row *row, enum report_form form, bool first, FILE *out)
{
    switch (form) {
    case REPORT_TEXT:
        row_text(row, out);
        break;
    case REPORT_CSV:
        row_csv(row, out);
        break;
    case REPORT_JSON:
        (void)fputs(first ? "" : ",\n", out);
        row_json(row, out);
        break;
    }
}

void report_ledger(const struct audit *a, const struct ledger_wanted *wanted, enum report_form form,
                   FILE *out)
{
    struct row row;
    size_t n = pool_count(a->messages);
    bool first = true;

    heading(form, out);
    if (form == REPORT_JSON)
        (void)fputc('[', out);
    for (uint32_t id = 0; id < n; id++) {
        row_fill(a, id, &row);
        if (!is_wanted(a, id, wanted, &row))
            continue;
        put_row(&row, form, first, out);
        first = false;
    }
    if (form == REPORT_JSON)
        (void)fputs("]\n", out);
}
