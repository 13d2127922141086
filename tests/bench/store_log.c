#include "store_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tekd/enc.h"

const bool log_is_kept = true;

static struct record *make(const char *event)
{
    struct record *r = NULL;

    if (record_new(event, &r) < 0)
        abort();
    return r;
}

static void put_id(struct record *r, const char *key, unsigned long number)
{
    char id[ENC_UUID_LEN + 1];

    (void)snprintf(id, sizeof(id), "%036lu", number);
    record_str(r, key, id);
}

int log_generated(struct store_tx *tx, unsigned long number)
{
    struct record *r = make("tek.generated");

    put_id(r, "keyid", number);
    record_str(r, "content", "urn:x:content:12345678");
    record_int(r, "bits", 128);
    record_str(r, "kekid", "storage/1");
    return store_tx_record(tx, r, NULL);
}

int log_given(struct store_tx *tx, const char *event, unsigned long number, uint64_t *ret_seq)
{
    struct record *r = make(event);
    uint8_t digest[32];

    memset(digest, (int)number, sizeof(digest));
    put_id(r, "mid", number);
    record_str(r, "peer", "bsa-1");
    record_hex(r, "cert", digest, 32);
    record_str(r, "addr", "127.0.0.1:12345");
    record_str(r, "dir", "pull");
    record_str(r, "content", "urn:x:content:12345678");
    put_id(r, "keyid", number);
    record_str(r, "kekid", "bsa-1/1");
    record_hex(r, "out", digest, 32);
    record_hex(r, "req", digest, 32);
    return store_tx_record(tx, r, ret_seq);
}

int log_followed(struct store_tx *tx, const char *event, unsigned long number, uint64_t *ret_seq)
{
    struct record *r = make(event);
    uint8_t digest[32] = {1};

    record_ref(r, "ref", 1, number);
    put_id(r, "mid", number);
    record_str(r, "peer", "bsa-1");
    record_hex(r, "out", digest, 32);
    record_hex(r, "cert", digest, 32);
    record_str(r, "addr", "127.0.0.1:12345");
    return store_tx_record(tx, r, ret_seq);
}
