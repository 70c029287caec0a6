/*
 * Readings that do not fit the days before: hourly CSV on stdin, one JSON object per anomaly on stdout.
 *
 * Method: a seasonal naive forecast with drift (expected = same hour yesterday + the usual change from
 * day to day), its error measured by exponentially weighted mean and variance (Finch 2009), both fed
 * with winsorised errors so that a broken sensor cannot teach the model that its spikes are normal
 * (as in Gelper, Fried and Croux 2010). A plain mean per hour would lag behind the seasons and raise
 * the alarm all spring. One pass, constant memory: 24 readings and two moments.
 */
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HOURS_PER_DAY = 24, WARM_UP = 7 * HOURS_PER_DAY, LINE_BYTES_MAX = 256 };

/* A week of readings carries most of the weight. */
static const double WEIGHT = 1.0 / WARM_UP;

/* Readings come in tenths, and the difference of two of them is off by 0.1/sqrt(6) from rounding alone.
 * Without this floor, the first change after a week of equal readings would be infinitely odd. */
static const double SIGMA_MIN = 0.041;

struct model {
    double last[HOURS_PER_DAY];
    bool known[HOURS_PER_DAY];
    double drift;
    double variance;
    int changes_seen;
};

/* Prints the reading if it is an anomaly, then learns from it. */
static void observe(struct model *model, const char *date, int hour, double temp, double limit) {
    if (!model->known[hour]) {
        model->known[hour] = true;
        model->last[hour] = temp;
        return;
    }
    double expected = model->last[hour] + model->drift;
    double error = temp - expected;
    double sigma = fmax(sqrt(model->variance), SIGMA_MIN);

    if (model->changes_seen >= WARM_UP) {
        if (fabs(error) > limit * sigma)
            printf("{\"date\":\"%s\",\"temp\":%.1f,\"expected\":%.2f,\"sigma\":%.1f}\n", date, temp, expected,
                   error / sigma);
        error = fmax(-limit * sigma, fmin(limit * sigma, error));
    } else {
        model->changes_seen++;
    }
    model->last[hour] = expected + error;
    model->drift += WEIGHT * error;
    model->variance = (1 - WEIGHT) * (model->variance + WEIGHT * error * error);
}

/* "2010/01/01 00:00" with optional seconds; gives the hour, or -1 if it is no such text. */
static int hour_of(const char *date) {
    const char *shape = "dddd/dd/dd dd:dd:dd";
    size_t length = strlen(date);
    if (length != 16 && length != 19) return -1;
    for (size_t i = 0; i < length; i++)
        if (shape[i] == 'd' ? !isdigit((unsigned char)date[i]) : date[i] != shape[i]) return -1;
    int hour = (date[11] - '0') * 10 + (date[12] - '0');
    return hour < HOURS_PER_DAY ? hour : -1;
}

/* strtod alone takes "nan", "12abc" and an empty text. */
static bool parse_number(const char *text, double *number) {
    char *end;
    *number = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*number);
}

static int bad_line(unsigned long line, const char *expected) {
    fprintf(stderr, "anomaly: line %lu: expected %s\n", line, expected);
    return EXIT_FAILURE;
}

int main(void) {
    double limit = 3.0;
    const char *setting = getenv("ANOMALY_SIGMA");
    if (setting != NULL && (!parse_number(setting, &limit) || limit <= 0)) {
        fprintf(stderr, "anomaly: ANOMALY_SIGMA is `%s`, expected a number above 0\n", setting);
        return EXIT_FAILURE;
    }

    static struct model model;
    char line[LINE_BYTES_MAX];
    bool date_first = false;
    unsigned long number = 0;
    while (fgets(line, sizeof line, stdin) != NULL) {
        number++;
        if (strchr(line, '\n') == NULL && !feof(stdin)) return bad_line(number, "a line of at most 254 bytes");
        line[strcspn(line, "\r\n")] = '\0';

        if (number == 1) {
            date_first = strcmp(line, "date,temp") == 0;
            if (!date_first && strcmp(line, "temp,date") != 0)
                return bad_line(number, "the header `date,temp` or `temp,date`");
            continue;
        }
        if (line[0] == '\0') continue;

        char *second = strchr(line, ',');
        if (second == NULL) return bad_line(number, "two columns");
        *second++ = '\0';
        const char *date = date_first ? line : second;
        int hour = hour_of(date);
        double temp;
        if (hour < 0) return bad_line(number, "a date-time such as `2010/01/31 23:00`");
        if (!parse_number(date_first ? second : line, &temp)) return bad_line(number, "a temperature");
        observe(&model, date, hour, temp, limit);
    }
    if (number == 0) return bad_line(1, "the header `date,temp` or `temp,date`");
    if (ferror(stdin) || fflush(stdout) != 0) {
        perror("anomaly");
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
