/*
 * The command that the platform's tests run: MODE says how it behaves.
 * A preview-1 core module on purpose, so that every test also goes through the platform's adapter.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* read and write instead of stdio: what comes in goes out at once, whole buffer or not. */
static int echo(void) {
    char buffer[4096];
    ssize_t got;
    while ((got = read(STDIN_FILENO, buffer, sizeof buffer)) > 0)
        for (ssize_t sent = 0; sent < got;) {
            ssize_t n = write(STDOUT_FILENO, buffer + sent, (size_t)(got - sent));
            if (n < 0) return EXIT_FAILURE;
            sent += n;
        }
    return got == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int exit3(void) {
    fputs("leaving with 3\n", stderr);
    return 3;
}

/* volatile keeps the loop from being optimised away together with its purpose. */
_Noreturn static void loop(void) {
    for (volatile unsigned turns = 0;; turns++) {
    }
}

/* Ignores errors: a guest that stops when stdout is full would not test the limit. */
_Noreturn static void flood(void) {
    char block[4096];
    memset(block, 'x', sizeof block);
    for (;;) {
        ssize_t ignored = write(STDOUT_FILENO, block, sizeof block);
        (void)ignored;
    }
}

int main(void) {
    const char *mode = getenv("MODE");
    if (mode == NULL) mode = "";
    if (strcmp(mode, "echo") == 0) return echo();
    if (strcmp(mode, "exit3") == 0) return exit3();
    if (strcmp(mode, "loop") == 0) loop();
    if (strcmp(mode, "flood") == 0) flood();
    if (strcmp(mode, "abort") == 0) abort();
    fprintf(stderr, "MODE is `%s`, expected echo, exit3, loop, flood or abort\n", mode);
    return 2;
}
