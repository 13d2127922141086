/*
 * A record is kept as its fields, sorted by key, the values as plain text in one arena; each field
 * knows how long its value is once it is escaped.  So writing needs one look at every octet and
 * no guess about the room it takes.
 *
 * The written form, octet by octet (RFC 8785 for the values there are):
 *     {"key":value,"key":value}
 * strings: `"` and `\` behind a `\`; BS TAB LF FF CR as \b \t \n \f \r; other octets below 0x20 as
 * \u00 and two lower-case digits; all else as it is.  Integers in decimal.  true, false.
 */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "audit.h"
#include "tekd/enc.h"
#include "tekd/err.h"
#include "tekd/record.h"

/* What most records need: longer ones take the overflow, in which the longest one fits. */
#define ARENA_INLINE   1024
#define ARENA_OVERFLOW (RECORD_MAX + RECORD_FIELDS_MAX * (RECORD_KEY_MAX + 2))
#define INT_MAX_JSON   ((UINT64_C(1) << 53) - 1)
#define INT_DIGITS_MAX 16 /* of 2^53 - 1 */
#define RECORD_VERSION 1
#define RESERVED_COUNT 5 /* v seq t inst ev */
/* What a member takes besides key and value: brace or comma, two quotes, colon; then the brace. */
#define MEMBER_OCTETS 4
#define CLOSING_BRACE 1

enum value_type { VALUE_STR, VALUE_INT, VALUE_BOOL };

struct field {
    const char *key;
    union {
        const char *str; /* len octets and a NUL */
        uint64_t num;
    } value;
    uint16_t len;
    uint16_t written; /* octets of the value as written, quotes included */
    uint8_t key_len;
    uint8_t type;
};

struct record {
    const char *event;
    int error;
    size_t n;    /* fields */
    size_t used; /* octets of the arena in use: of the inline one, or of the overflow */
    char *overflow;
    struct field field[RECORD_FIELDS_MAX];
    char arena[ARENA_INLINE];
};

/* Octets that an octet of a string takes besides one: a backslash (1), or that and u00x (5). */
static const uint8_t escape_len[256] = {
    [0x00 ... 0x07] = 5, ['\b'] = 1, ['\t'] = 1, ['\n'] = 1,          [0x0b] = 5,
    ['\f'] = 1,          ['\r'] = 1, ['"'] = 1,  [0x0e ... 0x1f] = 5, ['\\'] = 1,
};

/* The letter behind the backslash, of those that have one. */
static const char escape_letter[256] = {
    ['"'] = '"',  ['\\'] = '\\', ['\b'] = 'b', ['\t'] = 't',
    ['\n'] = 'n', ['\f'] = 'f',  ['\r'] = 'r',
};

/* Memory of one record; NULL, and the record is marked, when a record cannot be that long. */
static char *arena_take(struct record *r, size_t len)
{
    char *p;

    if (!r->overflow && len <= ARENA_INLINE - r->used) {
        p = r->arena + r->used;
        r->used += len;
        return p;
    }
    if (!r->overflow) {
        r->overflow = malloc(ARENA_OVERFLOW);
        r->used = 0;
    }
    if (!r->overflow || len > ARENA_OVERFLOW - r->used) {
        r->error = r->overflow ? TEKD_ETOOBIG : TEKD_ENOMEM;
        return NULL;
    }
    p = r->overflow + r->used;
    r->used += len;
    return p;
}

static int alloc(struct record **ret_record)
{
    struct record *r = malloc(sizeof *r);

    if (!r)
        return TEKD_ENOMEM;
    /* Not the arena: it is large and written before it is read. */
    memset(r, 0, offsetof(struct record, field));
    *ret_record = r;
    return 0;
}

int record_new(const char *event, struct record **ret_record)
{
    const struct event *e = event_find(event, strlen(event));
    struct record *r;

    assert(e != NULL);
    if (alloc(&r) < 0)
        return TEKD_ENOMEM;
    r->event = e->name;
    *ret_record = r;
    return 0;
}

void record_free(struct record *r)
{
    if (!r)
        return;
    free(r->overflow);
    free(r);
}

int record_error(const struct record *r)
{
    return r->error;
}

const char *record_event(const struct record *r)
{
    return r->event;
}

static int key_compare(const struct field *a, const struct field *b)
{
    size_t len = a->key_len < b->key_len ? a->key_len : b->key_len;
    int c = memcmp(a->key, b->key, len);

    return c != 0 ? c : (int)a->key_len - (int)b->key_len;
}

static bool key_ok(const char *key, size_t len)
{
    if (len == 0 || len > RECORD_KEY_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (!((key[i] >= 'a' && key[i] <= 'z') || key[i] == '_'))
            return false;
    return true;
}

static bool key_reserved(const char *key)
{
    static const char *const reserved[RESERVED_COUNT] = {"ev", "inst", "seq", "t", "v"};

    for (size_t i = 0; i < RESERVED_COUNT; i++)
        if (strcmp(key, reserved[i]) == 0)
            return true;
    return false;
}

/*
 * The octets of the text as written between its quotes; 0 for the empty text.
 * Errors: TEKD_EINVAL (not UTF-8, or U+0000), TEKD_ETOOBIG.
 */
static int text_measure(const char *s, size_t len, size_t *ret_written)
{
    size_t written = 0;
    uint32_t code;

    if (len > RECORD_MAX)
        return TEKD_ETOOBIG;
    for (size_t i = 0, n; i < len; i += n) {
        uint8_t c = (uint8_t)s[i];

        n = c < 0x80 ? 1 : utf8_read(s + i, len - i, &code);
        if (n == 0 || c == 0)
            return TEKD_EINVAL;
        written += n + escape_len[c];
    }
    if (written > RECORD_MAX)
        return TEKD_ETOOBIG;
    *ret_written = written;
    return 0;
}

static uint16_t digits(uint64_t v)
{
    uint16_t n = 1;

    for (; v >= 10; v /= 10)
        n++;
    return n;
}

static void field_set_text(struct field *f, const char *text, size_t len, size_t written)
{
    f->type = VALUE_STR;
    f->value.str = text;
    f->len = (uint16_t)len;
    f->written = (uint16_t)(written + 2);
}

static void field_set_int(struct field *f, uint64_t v)
{
    f->type = VALUE_INT;
    f->value.num = v;
    f->written = digits(v);
}

static void field_set_bool(struct field *f, bool v)
{
    f->type = VALUE_BOOL;
    f->value.num = v;
    f->written = v ? 4 : 5;
}

/* Puts the field, whose value is set, among the others; its key is copied. */
static void insert(struct record *r, struct field f, const char *key)
{
    size_t len = strlen(key);
    size_t at = r->n;
    char *copy;

    assert(key_ok(key, len) && !key_reserved(key));
    if (r->n == RECORD_FIELDS_MAX - RESERVED_COUNT)
        r->error = TEKD_ETOOBIG;
    if (r->error < 0)
        return;
    copy = arena_take(r, len + 1);
    if (!copy)
        return;
    memcpy(copy, key, len + 1);
    f.key = copy;
    f.key_len = (uint8_t)len;
    for (; at > 0 && key_compare(&f, &r->field[at - 1]) < 0; at--)
        r->field[at] = r->field[at - 1];
    assert(at == 0 || key_compare(&f, &r->field[at - 1]) != 0);
    r->field[at] = f;
    r->n++;
}

void record_strn(struct record *r, const char *key, const char *value, size_t len)
{
    struct field f = {.type = VALUE_STR};
    size_t written = 0;
    char *copy;
    int e;

    if (r->error < 0)
        return;
    e = text_measure(value, len, &written);
    if (e < 0) {
        r->error = e;
        return;
    }
    copy = arena_take(r, len + 1);
    if (!copy)
        return;
    memcpy(copy, value, len);
    copy[len] = '\0';
    field_set_text(&f, copy, len, written);
    insert(r, f, key);
}

void record_str(struct record *r, const char *key, const char *value)
{
    record_strn(r, key, value, strlen(value));
}

void record_int(struct record *r, const char *key, uint64_t value)
{
    struct field f = {.type = VALUE_INT};

    if (value > INT_MAX_JSON && r->error == 0)
        r->error = TEKD_EINVAL;
    field_set_int(&f, value);
    insert(r, f, key);
}

void record_bool(struct record *r, const char *key, bool value)
{
    struct field f = {.type = VALUE_BOOL};

    field_set_bool(&f, value);
    insert(r, f, key);
}

void record_hex(struct record *r, const char *key, const uint8_t *data, size_t len)
{
    struct field f = {.type = VALUE_STR};
    char *copy;

    if (r->error < 0)
        return;
    if (len > RECORD_MAX / 2) {
        r->error = TEKD_ETOOBIG;
        return;
    }
    copy = arena_take(r, ENC_HEX_LEN(len) + 1);
    if (!copy)
        return;
    enc_hex(data, len, copy);
    field_set_text(&f, copy, ENC_HEX_LEN(len), ENC_HEX_LEN(len));
    insert(r, f, key);
}

/* The decimal digits of v, and no NUL; the position behind them. */
static char *put_decimal(char *p, uint64_t v)
{
    uint16_t n = digits(v);

    for (uint16_t i = n; i > 0; i--) {
        p[i - 1] = (char)('0' + v % 10);
        v /= 10;
    }
    return p + n;
}

void record_ref(struct record *r, const char *key, uint64_t epoch, uint64_t seq)
{
    char text[2 * 20 + 1];
    char *p = put_decimal(text, epoch);

    *p++ = '/';
    p = put_decimal(p, seq);
    record_strn(r, key, text, (size_t)(p - text));
}

static char *put_text(char *p, const struct field *f)
{
    static const char hex[] = "0123456789abcdef";

    *p++ = '"';
    if (f->written == f->len + 2) { /* nothing to escape */
        memcpy(p, f->value.str, f->len);
        p += f->len;
    }
    for (size_t i = 0; f->written != f->len + 2 && i < f->len; i++) {
        uint8_t c = (uint8_t)f->value.str[i];

        if (escape_len[c] == 0) {
            *p++ = (char)c;
            continue;
        }
        *p++ = '\\';
        *p++ = escape_len[c] == 1 ? escape_letter[c] : 'u';
        if (escape_len[c] == 1)
            continue;
        *p++ = '0';
        *p++ = '0';
        *p++ = hex[c >> 4];
        *p++ = hex[c & 0x0f];
    }
    *p++ = '"';
    return p;
}

static char *put_member(char *p, const struct field *f)
{
    *p++ = '"';
    memcpy(p, f->key, f->key_len);
    p += f->key_len;
    *p++ = '"';
    *p++ = ':';
    switch (f->type) {
    case VALUE_STR:
        return put_text(p, f);
    case VALUE_INT:
        return put_decimal(p, f->value.num);
    default:
        memcpy(p, f->value.num ? "true" : "false", f->written);
        return p + f->written;
    }
}

/* The fields that every record has, sorted; t and inst must outlive them. */
struct reserved {
    struct field field[RESERVED_COUNT];
    char t[ENC_TIME_LEN + 1];
};

static int reserved_fill(struct reserved *x, const char *event, const char *inst)
{
    size_t written = 0;
    int r = text_measure(inst, strlen(inst), &written);

    if (r < 0)
        return r;
    x->field[0] = (struct field){.key = "ev", .key_len = 2};
    field_set_text(&x->field[0], event, strlen(event), strlen(event));
    x->field[1] = (struct field){.key = "inst", .key_len = 4};
    field_set_text(&x->field[1], inst, strlen(inst), written);
    x->field[2] = (struct field){.key = "seq", .key_len = 3};
    x->field[3] = (struct field){.key = "t", .key_len = 1};
    field_set_text(&x->field[3], x->t, ENC_TIME_LEN, ENC_TIME_LEN);
    x->field[4] = (struct field){.key = "v", .key_len = 1};
    field_set_int(&x->field[4], RECORD_VERSION);
    return 0;
}

static size_t members_octets(const struct field *f, size_t n)
{
    size_t total = 0;

    for (size_t i = 0; i < n; i++)
        total += (size_t)f[i].key_len + f[i].written + MEMBER_OCTETS;
    return total;
}

/* The next of two sorted lists, whichever has the smaller key. */
static const struct field *next_of(const struct field **a, size_t *n_a, const struct field **b,
                                   size_t *n_b)
{
    if (*n_b == 0 || (*n_a > 0 && key_compare(*a, *b) < 0)) {
        --*n_a;
        return (*a)++;
    }
    --*n_b;
    return (*b)++;
}

/* Writes two sorted lists of fields as one object. */
static void put_object(char *p, const struct field *a, size_t n_a, const struct field *b,
                       size_t n_b)
{
    char separator = '{';

    while (n_a > 0 || n_b > 0) {
        *p++ = separator;
        separator = ',';
        p = put_member(p, next_of(&a, &n_a, &b, &n_b));
    }
    *p = '}';
}

int record_encode(const struct record *r, uint64_t seq, int64_t t_us, const char *inst,
                  struct buf *out)
{
    struct reserved x;
    size_t total;
    uint8_t *p;
    int e;

    if (r->error < 0)
        return r->error;
    if (seq > INT_MAX_JSON)
        return TEKD_ETOOBIG;
    e = reserved_fill(&x, r->event, inst);
    if (e < 0)
        return e;
    enc_time(t_us, x.t);
    field_set_int(&x.field[2], seq);
    total =
        members_octets(r->field, r->n) + members_octets(x.field, RESERVED_COUNT) + CLOSING_BRACE;
    if (total > RECORD_MAX)
        return TEKD_ETOOBIG;
    p = buf_reserve(out, total);
    if (!p)
        return buf_error(out) < 0 ? buf_error(out) : TEKD_ETOOBIG;
    put_object((char *)p, r->field, r->n, x.field, RESERVED_COUNT);
    buf_commit(out, total);
    return 0;
}

/* Reading.  The cursor stands at the next octet; end is behind the last one. */
struct cursor {
    const char *p;
    const char *end;
    const char *what; /* why not; set when something failed */
};

static bool refuse(struct cursor *c, const char *what)
{
    if (!c->what)
        c->what = what;
    return false;
}

static bool expect(struct cursor *c, char octet)
{
    if (c->p == c->end || *c->p != octet)
        return false;
    c->p++;
    return true;
}

/* One escape, the cursor behind its backslash; the octet, or -1. */
static int read_escape(struct cursor *c)
{
    uint8_t value[2];

    if (c->p == c->end)
        return -1;
    if (*c->p != 'u') {
        char letter = *c->p++;

        for (int octet = 0; octet < UCHAR_MAX; octet++)
            if (letter != '\0' && escape_letter[octet] == letter)
                return octet;
        return -1;
    }
    if (c->end - c->p < 5 || enc_hex_read(c->p + 1, 4, value, 2) < 0 || value[0] != 0)
        return -1;
    c->p += 5;
    return value[1];
}

/* The text between the quotes, unescaped into the arena. */
static bool read_text(struct record *r, struct cursor *c, struct field *f)
{
    const char *close = c->p;
    size_t len = 0, written = 0;
    char *text;

    while (close < c->end && *close != '"')
        close += *close == '\\' ? 2 : 1;
    if (close >= c->end)
        return refuse(c, "a string has no end");
    text = arena_take(r, (size_t)(close - c->p) + 1);
    if (!text)
        return false;
    while (c->p < close) {
        int octet = (uint8_t)*c->p++;

        if (octet == '\\')
            octet = read_escape(c);
        if (octet < 0)
            return refuse(c, "a string holds an escape that is not canonical");
        text[len++] = (char)octet;
    }
    text[len] = '\0';
    c->p = close + 1;
    if (text_measure(text, len, &written) < 0)
        return refuse(c, "a string is not UTF-8, or holds U+0000");
    field_set_text(f, text, len, written);
    return true;
}

static bool read_int(struct cursor *c, struct field *f)
{
    const char *start = c->p;
    uint64_t value;

    while (c->p < c->end && *c->p >= '0' && *c->p <= '9')
        c->p++;
    if (decimal_read(start, (size_t)(c->p - start), &value) < 0 || value > INT_MAX_JSON)
        return refuse(c, "an integer is not canonical, or not below 2^53");
    field_set_int(f, value);
    return true;
}

static bool read_word(struct cursor *c, const char *word)
{
    size_t len = strlen(word);

    if ((size_t)(c->end - c->p) < len || memcmp(c->p, word, len) != 0)
        return false;
    c->p += len;
    return true;
}

static bool read_value(struct record *r, struct cursor *c, struct field *f)
{
    if (expect(c, '"'))
        return read_text(r, c, f);
    if (c->p < c->end && *c->p >= '0' && *c->p <= '9')
        return read_int(c, f);
    if (read_word(c, "true")) {
        field_set_bool(f, true);
        return true;
    }
    if (read_word(c, "false")) {
        field_set_bool(f, false);
        return true;
    }
    return refuse(c, "a value is neither string, integer, true nor false");
}

static bool read_key(struct record *r, struct cursor *c, struct field *f)
{
    const char *key;
    size_t len;
    char *copy;

    if (!expect(c, '"'))
        return refuse(c, "a key is missing");
    key = c->p;
    while (c->p < c->end && *c->p != '"')
        c->p++;
    len = (size_t)(c->p - key);
    if (!key_ok(key, len))
        return refuse(c, "a key is not of a-z and _, or too long");
    if (!expect(c, '"') || !expect(c, ':'))
        return refuse(c, "a key without value");
    copy = arena_take(r, len);
    if (!copy)
        return false;
    memcpy(copy, key, len);
    f->key = copy;
    f->key_len = (uint8_t)len;
    return true;
}

static bool read_member(struct record *r, struct cursor *c)
{
    struct field f = {.type = VALUE_STR};

    if (r->n == RECORD_FIELDS_MAX)
        return refuse(c, "too many fields");
    if (!read_key(r, c, &f) || !read_value(r, c, &f))
        return false;
    if (r->n > 0 && key_compare(&r->field[r->n - 1], &f) >= 0)
        return refuse(c, "the keys are not sorted, or one is repeated");
    r->field[r->n++] = f;
    return true;
}

static bool read_object(struct record *r, struct cursor *c)
{
    if (!expect(c, '{'))
        return refuse(c, "not an object");
    do {
        if (!read_member(r, c))
            return false;
    } while (expect(c, ','));
    if (!expect(c, '}'))
        return refuse(c, "the object has no end, or holds white space");
    if (c->p != c->end)
        return refuse(c, "octets follow the object");
    return true;
}

/* The fields that every record has, in the form they have. */
static bool check_reserved(struct record *r, struct cursor *c)
{
    const char *t = record_get_str(r, "t");
    const char *inst = record_get_str(r, "inst");
    uint64_t v = 0, seq;
    int64_t t_us;

    r->event = record_get_str(r, "ev");
    if (!record_get_int(r, "v", &v) || v != RECORD_VERSION)
        return refuse(c, "field v is not 1");
    if (!record_get_int(r, "seq", &seq))
        return refuse(c, "field seq is not an integer");
    if (!t || enc_time_read(t, strlen(t), &t_us) < 0)
        return refuse(c, "field t is not a time in microseconds, UTC");
    if (!inst || inst[0] == '\0')
        return refuse(c, "field inst is not a name");
    if (!r->event || r->event[0] == '\0')
        return refuse(c, "field ev is not a name");
    return true;
}

/* Whether writing the fields gives the octets they were read from. */
static bool check_octets(const struct record *r, struct cursor *c, const char *octets, size_t len)
{
    char again[RECORD_MAX];

    if (members_octets(r->field, r->n) + CLOSING_BRACE != len)
        return refuse(c, "not the canonical octets");
    put_object(again, r->field, r->n, NULL, 0);
    return memcmp(again, octets, len) == 0 || refuse(c, "not the canonical octets");
}

int record_parse(const void *octets, size_t len, struct record **ret_record, const char **what)
{
    AUTO(record) struct record *r = NULL;
    struct cursor c = {.p = octets, .end = (const char *)octets + len};

    if (len > RECORD_MAX) {
        *what = "longer than a record may be";
        return TEKD_EFORMAT;
    }
    if (alloc(&r) < 0) {
        *what = "out of memory";
        return TEKD_ENOMEM;
    }
    if (!read_object(r, &c) || !check_octets(r, &c, octets, len) || !check_reserved(r, &c)) {
        *what = c.what ? c.what : "too long, or out of memory";
        return r->error == TEKD_ENOMEM ? TEKD_ENOMEM : TEKD_EFORMAT;
    }
    *ret_record = TAKE(r);
    return 0;
}

static const struct field *find(const struct record *r, const char *key)
{
    size_t len = strlen(key);

    for (size_t i = 0; i < r->n; i++)
        if (r->field[i].key_len == len && memcmp(r->field[i].key, key, len) == 0)
            return &r->field[i];
    return NULL;
}

bool record_has(const struct record *r, const char *key)
{
    return find(r, key) != NULL;
}

const char *record_get_str(const struct record *r, const char *key)
{
    const struct field *f = find(r, key);

    return f && f->type == VALUE_STR ? f->value.str : NULL;
}

bool record_get_int(const struct record *r, const char *key, uint64_t *ret_value)
{
    const struct field *f = find(r, key);

    if (!f || f->type != VALUE_INT)
        return false;
    *ret_value = f->value.num;
    return true;
}

bool record_get_bool(const struct record *r, const char *key, bool *ret_value)
{
    const struct field *f = find(r, key);

    if (!f || f->type != VALUE_BOOL)
        return false;
    *ret_value = f->value.num != 0;
    return true;
}
