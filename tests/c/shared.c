/* A Win32 program that shares memory without mmapipc, as there are many:

       shared make TAG MUTEX TEXT     makes the memory and the mutex, writes TEXT, and says "written";
                                      after a line of input says what is there by then
       shared open TAG MUTEX TEXT     opens both, says what is there, and writes TEXT
       shared die TAG MUTEX           opens both, writes half of something, and ends with the mutex
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#define SIZE (1 << 20)

enum { TROUBLE = 1, EXISTS = 2 };

static void check(int well, const char *what)
{
    if (!well) {
        fprintf(stderr, "shared: %s: error %lu\n", what, GetLastError());
        exit(TROUBLE);
    }
}

static void say(const char *text)
{
    puts(text);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    check(argc >= 4, "usage: shared make|open|die TAG MUTEX [TEXT]");
    const char *tag = argv[2], *text = argc > 4 ? argv[4] : "half of";
    int makes = strcmp(argv[1], "make") == 0, dies = strcmp(argv[1], "die") == 0;
    HANDLE memory, mutex;
    if (makes) {
        memory = CreateFileMappingA(INVALID_HANDLE_VALUE, NULL, PAGE_READWRITE, 0, SIZE, tag);
        if (memory && GetLastError() == ERROR_ALREADY_EXISTS)
            return EXISTS;
        mutex = CreateMutexA(NULL, FALSE, argv[3]);
    } else {
        memory = OpenFileMappingA(FILE_MAP_ALL_ACCESS, FALSE, tag);
        mutex = OpenMutexA(MUTEX_ALL_ACCESS, FALSE, argv[3]);
    }
    check(memory && mutex, tag);
    char *bytes = MapViewOfFile(memory, FILE_MAP_ALL_ACCESS, 0, 0, SIZE);
    check(bytes != NULL, "view");
    check(WaitForSingleObject(mutex, 60000) == WAIT_OBJECT_0, "mutex");
    if (!makes && !dies)
        say(bytes);
    strcpy(bytes, text);
    if (dies) {
        say("half");
        TerminateProcess(GetCurrentProcess(), 9);
    }
    ReleaseMutex(mutex);
    if (makes) {
        char line[10];
        say("written");
        check(fgets(line, sizeof line, stdin) != NULL, "input");
        check(WaitForSingleObject(mutex, 60000) == WAIT_OBJECT_0, "mutex");
        say(bytes);
        ReleaseMutex(mutex);
    }
    return 0;
}
