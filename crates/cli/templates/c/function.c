/* Greets whom its input names. A command: it reads standard input, writes standard output, and says by its exit status
 * whether that is the whole answer. */

#include <ctype.h>
#include <stdio.h>

#define NAME_BYTES_MAX 1024

int main(void) {
    char name[NAME_BYTES_MAX + 1];
    size_t length = fread(name, 1, sizeof name, stdin);
    if (ferror(stdin)) {
        fputs("the input broke off\n", stderr);
        return 1;
    }
    if (length > NAME_BYTES_MAX) {
        fprintf(stderr, "the name is longer than %d bytes\n", NAME_BYTES_MAX);
        return 1;
    }
    while (length > 0 && isspace((unsigned char)name[length - 1])) {
        length--;
    }
    if (length == 0) {
        puts("hello, edge");
    } else {
        fputs("hello, ", stdout);
        fwrite(name, 1, length, stdout);
        putchar('\n');
    }
    /* What could not be written is no answer. */
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : 1;
}
