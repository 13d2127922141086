/* A Confirmation that is POSTed to the BSM: of a collected delivery, or a late one. */
#include "bsa.h"

#include <string.h>

#include "tekd/err.h"

#define HTTP_NO_CONTENT 204

int confirm_post(const struct https_request *link, const struct confirmation *c, long *ret_status,
                 struct check_refusal *ret_why)
{
    AUTO(buf) struct buf *body = NULL;
    struct https_answer answer = {.status = 0};
    struct https_request request = *link;
    char text[HTTPS_WHY_MAX] = "out of memory";
    int r;

    *ret_status = 0;
    memset(ret_why, 0, sizeof(*ret_why));
    ret_why->check = "Confirmation";
    r = buf_new(HTTPS_BODY_MAX, &body);
    answer.body = body;
    request.content_type = cp3_media_content_type(c->media);
    request.body = (const uint8_t *)c->octets;
    request.body_len = c->len;
    if (r == 0)
        r = https_post(&request, &answer, text);
    if (r < 0) {
        check_no_answer(ret_why, request.url, text);
        return r;
    }
    *ret_status = answer.status;
    check_show(answer.reason, strlen(answer.reason), ret_why->reason, sizeof(ret_why->reason));
    return check_http(HTTP_NO_CONTENT, answer.status, buf_data(body), buf_len(body), ret_why);
}
