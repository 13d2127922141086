#include "internal.h"

#include <stdio.h>
#include <string.h>

#include "tekd/err.h"
#include "tekd/log.h"

int kek_describe(struct keys *k, const struct kek_wanted *what, struct store_kek *ret_kek,
                 struct keys_error *err)
{
    struct hsm_kek_report report = {.imported = false};
    int r =
        hsm_describe_kek(k->hsm, what->label, what->use, what->wrap, what->deadline_us, &report);

    if (r < 0)
        return admin_fail(err, r, "KEK \"%s\": %s%s%s", what->label, tekd_strerror(r),
                          report.text[0] ? ": " : "", report.text);
    *ret_kek = (struct store_kek){.kek = report.kek, .imported = report.imported};
    return 0;
}

int kek_check(struct keys *k, const struct store_kek *bound, int64_t deadline_us,
              struct keys_error *err)
{
    const struct kek_wanted what = {.label = bound->kek.label,
                                    .use = bound->kek.use,
                                    .wrap = bound->kek.wrap,
                                    .deadline_us = deadline_us};
    struct store_kek found = {.row = 0};
    int r = kek_describe(k, &what, &found, err);

    if (r < 0)
        return r;
    if (found.kek.id_len != bound->kek.id_len ||
        memcmp(found.kek.id, bound->kek.id, bound->kek.id_len) != 0 ||
        memcmp(found.kek.fingerprint, bound->kek.fingerprint, sizeof(bound->kek.fingerprint)) != 0)
        return admin_fail(err, TEKD_ETAMPER,
                          "KEK \"%s\" (%s): the token has another key of this label than the one "
                          "that was bound",
                          bound->kek.label, bound->name);
    return 0;
}

int kek_record(struct store_tx *tx, const struct store_kek *kek, const struct keys_actor *a)
{
    struct record *rec = NULL;
    int r = record_new("kek.added", &rec);

    if (r < 0)
        return r;
    record_str(rec, "kekid", kek->name);
    record_str(rec, "label", kek->kek.label);
    record_str(rec, "wrap", hsm_wrap_name(kek->kek.wrap));
    record_hex(rec, "fp", kek->kek.fingerprint, sizeof(kek->kek.fingerprint));
    record_bool(rec, "imported", kek->imported);
    if (a)
        admin_actor(rec, a);
    else
        record_str(rec, "actor", "tekd");
    return store_tx_record(tx, rec, NULL);
}

int kek_record_retired(struct store_tx *tx, const struct store_kek *kek, const struct keys_actor *a)
{
    struct record *rec = NULL;
    int r = record_new("kek.retired", &rec);

    if (r < 0)
        return r;
    record_str(rec, "kekid", kek->name);
    admin_actor(rec, a);
    return store_tx_record(tx, rec, NULL);
}
