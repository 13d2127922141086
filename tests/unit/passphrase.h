/* A passphrase, "secret", offered where OpenSSL asks for it when there is no terminal: on stdin,
 * which is this process's then. */
#ifndef TEST_PASSPHRASE_H
#define TEST_PASSPHRASE_H

void passphrase_offer(void);

#endif
