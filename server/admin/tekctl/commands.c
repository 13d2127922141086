#include "tekctl.h"

#include <string.h>

#define BSA_OPTIONS                                                                                \
    {"cert", OPTION_FILE_LIST, "certs", false}, {"kek", OPTION_STR, "kek", false},                 \
        {"wrap", OPTION_STR, "wrap", false}, {"url", OPTION_STR, "url", false},                    \
        {"ca", OPTION_FILE, "ca", false}, {"media", OPTION_STR, "media", false},                   \
        {"form", OPTION_STR, "form", false}, {"no-key-info", OPTION_NO, "key_info", false},        \
    {                                                                                              \
        "entitle", OPTION_STR_LIST, "entitle", false                                               \
    }

static const struct command commands[] = {
    {.words = "status",
     .synopsis = "",
     .help = "whether keys can be given, and what was done so far",
     .print = print_status},
    {.words = "hsm status",
     .synopsis = "",
     .help = "the token and its workers",
     .print = print_hsm},
    {.words = "hsm retry",
     .synopsis = "[--ask-pin]",
     .help = "log in again after a refused PIN, once its source was mended; --ask-pin asks for "
             "the PIN (sources prompt and descriptor)",
     .option = {{"ask-pin", OPTION_YES, "ask_pin", false}},
     .run = retry_run},
    {.words = "bsa add",
     .positional = "id",
     .synopsis =
         "ID --cert FILE --kek LABEL [--wrap aes-kw] [--url URL] [--ca FILE] "
         "[--media xml|json] [--form full|efficient] [--no-key-info] [--entitle PATTERN]...",
     .help = "enrol a BSA; without --entitle it may have nothing; a second --cert is the next one",
     .option = {BSA_OPTIONS}},
    {.words = "bsa set",
     .positional = "id",
     .synopsis = "ID [the options of bsa add] [--keep-old-kek]",
     .help =
         "change an enrolment; what is given replaces what was there; another --kek retires the "
         "one before it, so that repeats of what was answered under that get key-gone; "
         "--keep-old-kek: they are still answered",
     .option = {BSA_OPTIONS, {"keep-old-kek", OPTION_YES, "keep_old_kek", false}}},
    {.words = "bsa list",
     .synopsis = "",
     .help = "all BSAs",
     .header = "ID                               ENABLED   MEDIA  FORM       "
               "KEK                          CERTIFICATE",
     .print = print_bsa,
     .run = list_run},
    {.words = "bsa show",
     .positional = "id",
     .synopsis = "ID",
     .help = "one BSA, with all KEKs it has had",
     .print = print_object},
    {.words = "bsa disable",
     .positional = "id",
     .synopsis = "ID",
     .help = "from now on it gets nothing, requests under way included"},
    {.words = "bsa enable", .positional = "id", .synopsis = "ID", .help = "undo bsa disable"},
    {.words = "bsa retire-kek",
     .positional = "id",
     .second = "kek",
     .synopsis = "ID KEK-ID",
     .help = "end a KEK that was kept, e.g. bsa-1/1: repeats of its messages get key-gone"},
    {.words = "content add",
     .positional = "content",
     .synopsis = "CONTENT-ID [--bits 128|192|256] [--period SECONDS [--lead SECONDS] "
                 "[--epoch TIME]]",
     .help = "let a content have TEKs; with --period another one each crypto-period, given out "
             "--lead before it begins; --epoch is when the first one began, by default now",
     .option = {{"bits", OPTION_INT, "bits", false},
                {"period", OPTION_INT, "period", false},
                {"lead", OPTION_INT, "lead", false},
                {"epoch", OPTION_STR, "epoch", false}}},
    {.words = "content list",
     .synopsis = "",
     .help = "all contents",
     .header = "CREATED                      BITS  PERIOD    LEAD      CONTENT-ID",
     .print = print_content,
     .run = list_run},
    {.words = "content show",
     .positional = "content",
     .synopsis = "CONTENT-ID",
     .help = "one content and its TEKs",
     .member = "keys",
     .indented = true,
     .run = content_run},
    {.words = "key list",
     .positional = "content",
     .synopsis = "CONTENT-ID",
     .help = "the TEKs of a content",
     .header = PRINT_KEY_HEADER,
     .print = print_key,
     .indented = true,
     .run = list_run},
    {.words = "key rotate",
     .positional = "content",
     .synopsis = "CONTENT-ID",
     .help = "make a new TEK current; prints its key ID",
     .print = print_key_id},
    {.words = "key destroy",
     .positional = "key",
     .synopsis = "KEY-ID",
     .help = "forget a TEK for good; repeats of its messages get key-gone"},
    {.words = "deliver",
     .positional = "content",
     .synopsis = "CONTENT-ID [--bsa ID]...",
     .help = "send the current TEK to these BSAs, or to all that are entitled to it; prints the "
             "Message IDs",
     .option = {{"bsa", OPTION_STR_LIST, "bsas", false}},
     .print = print_lines},
    {.words = "delivery list",
     .synopsis = "[--pending]",
     .help = "all deliveries; --pending: those that are open",
     .option = {{"pending", OPTION_YES, "pending", false}},
     .header = PRINT_DELIVERY_HEADER,
     .print = print_delivery,
     .run = list_run},
    {.words = "delivery show",
     .positional = "message",
     .synopsis = "MESSAGE-ID",
     .help = "one delivery, and all that the log says of it",
     .print = print_object},
    {.words = "delivery retry",
     .positional = "message",
     .synopsis = "MESSAGE-ID",
     .help = "send an open or unconfirmed delivery again at once, with a new deadline"},
    {.words = "delivery abandon",
     .positional = "message",
     .synopsis = "MESSAGE-ID --reason TEXT",
     .help = "give a delivery up",
     .option = {{"reason", OPTION_STR, "reason", true}}},
    {.words = "audit checkpoint",
     .synopsis = "",
     .help = "have the log signed as it stands; prints the checkpoint",
     .print = print_checkpoint},
    {.words = "audit ledger",
     .synopsis = "[--epoch N] [--bsa ID] [--content CONTENT-ID] [--from TIME] [--until TIME] "
                 "[--pending] [--csv]",
     .help = "every Message ID of an epoch, by default the current one, with its answer, or its "
             "delivery and what became of it; a \"?\" marks what no checkpoint covered before a "
             "crash; --from and --until: by the time of the answer or preparation, UTC, whole or "
             "its beginning (2026-11-22, 2026-11-22T13:15); --pending: what may still be confirmed",
     .option = {{"epoch", OPTION_INT, "epoch", false},
                {"bsa", OPTION_STR, "bsa", false},
                {"content", OPTION_STR, "content", false},
                {"from", OPTION_STR, "from", false},
                {"until", OPTION_STR, "until", false},
                {"pending", OPTION_YES, "pending", false},
                {"csv", OPTION_YES, "csv", false}},
     .run = ledger_run},
    {.words = "audit close-epoch",
     .synopsis = "",
     .help = "end this epoch of the log and begin the next one; prints the last checkpoint",
     .print = print_checkpoint},
    {.words = "audit export",
     .positional = "dir",
     .synopsis = "DIR [--epoch N]",
     .help = "write an epoch of the log, by default the current one, to a new directory, for "
             "tek-audit",
     .option = {{"epoch", OPTION_INT, "epoch", false}},
     .run = export_run},
};

const struct command *command_at(size_t i)
{
    return i < ARRAY_SIZE(commands) ? &commands[i] : NULL;
}

/* Whether argv starts with these words; counts them. */
static bool starts_with(const char *words, int argc, char **argv, int *ret_words)
{
    int n = 0;

    for (;;) {
        size_t len = strcspn(words, " ");

        if (n >= argc || strlen(argv[n]) != len || strncmp(argv[n], words, len) != 0)
            return false;
        n++;
        words += len;
        if (!*words)
            break;
        words++;
    }
    *ret_words = n;
    return true;
}

const struct command *command_find(int argc, char **argv, int *ret_words)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (starts_with(commands[i].words, argc, argv, ret_words))
            return &commands[i];
    }
    return NULL;
}
