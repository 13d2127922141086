/* What is the same for every driver. */
#include "driver.h"

#include "tekd/err.h"
#include "tekd/log.h"

int db_first(struct db *db, enum db_statement id, const struct db_value *v, size_t n)
{
    int r = db_query(db, id, v, n);

    if (r < 0)
        return r;
    r = db_step(db, id);
    if (r == 1)
        return 0;
    db_end(db, id);
    return r < 0 ? r : TEKD_ENOTFOUND;
}

int db_run(struct db *db, enum db_statement id, const struct db_value *v, size_t n,
           int64_t *ret_changes)
{
    int r = db_query(db, id, v, n);

    if (r < 0)
        return r;
    r = db_step(db, id);
    if (r == 0 && ret_changes != NULL)
        *ret_changes = db_driver(db)->changes(db);
    db_end(db, id);
    return r;
}

int db_insert(struct db *db, enum db_statement id, const struct db_value *v, size_t n,
              int64_t *ret_row)
{
    int64_t changes = 0;
    int r = db_run(db, id, v, n, &changes);

    if (r < 0)
        return r;
    if (changes == 0)
        return TEKD_EEXIST;
    if (ret_row != NULL)
        *ret_row = db_driver(db)->last_row(db);
    return 0;
}

static int column_wrong(enum db_statement id, int column)
{
    log_event(LOG_ERROR, "store", "stored-value-malformed",
              LOG_STR("statement", db_statement_text(id)), LOG_INT("column", column));
    return TEKD_EIO;
}

int db_copy_text(struct db *db, enum db_statement id, int column, char *out, size_t max)
{
    size_t len;
    const char *s = db_column_octets(db, id, column, &len);

    if (len > max || memchr(s, '\0', len) != NULL)
        return column_wrong(id, column);
    memcpy(out, s, len);
    out[len] = '\0';
    return 0;
}

int db_copy_octets(struct db *db, enum db_statement id, int column, void *out, size_t len)
{
    size_t have;
    const char *p = db_column_octets(db, id, column, &have);

    if (have != len)
        return column_wrong(id, column);
    memcpy(out, p, len);
    return 0;
}
