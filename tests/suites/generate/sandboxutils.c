/* Stands for the driver's libnvidia-sandboxutils.so.1 on a simulated node: what NVIDIA's toolkit asks it. The answers
 * stand in /sandboxutils, one file of a GPU a line: UUID, kind, path, and a link's text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct file {
	struct file *next;
	int area, kind, module, flags;
	char *path;
};

struct resources {
	unsigned version;
	int by;
	char id[256];
	struct file *files;
};

enum { DONE = 0, NOT_THERE = 8, NO_FILE = 11, CONTENT = 4 };

struct line {
	char uuid[96], path[128], text[128];
	int kind;
};

static int next(FILE *answers, struct line *line)
{
	char all[512];
	line->text[0] = 0;
	return fgets(all, sizeof all, answers) && sscanf(all, "%95s %d %127s %127s", line->uuid, &line->kind, line->path, line->text) >= 3;
}

int nvSandboxUtilsInit(void *root)
{
	return DONE;
}

int nvSandboxUtilsShutdown(void)
{
	return DONE;
}

const char *nvSandboxUtilsErrorString(int error)
{
	return "simulated";
}

int nvSandboxUtilsGetDriverVersion(char *version, unsigned size)
{
	snprintf(version, size, "%s", VERSION);
	return DONE;
}

int nvSandboxUtilsGetGpuResource(struct resources *asked)
{
	struct line line;
	struct file **end = &asked->files;
	FILE *answers = fopen("/sandboxutils", "r");

	*end = NULL;
	while (answers && next(answers, &line)) {
		if (strcmp(line.uuid, asked->id))
			continue;
		*end = calloc(1, sizeof **end);
		(*end)->kind = line.kind;
		(*end)->flags = line.text[0] ? CONTENT : 1;
		(*end)->path = strdup(line.path);
		end = &(*end)->next;
	}
	if (answers) {
		FILE *told = fopen("/sandboxutils.asked", "a");
		if (told) {
			fprintf(told, "%s\n", asked->id);
			fclose(told);
		}
		fclose(answers);
	}
	return asked->files ? DONE : NOT_THERE;
}

int nvSandboxUtilsGetFileContent(char *path, char *content, unsigned *size)
{
	struct line line;
	FILE *answers = fopen("/sandboxutils", "r");
	int found = NO_FILE;

	while (answers && found && next(answers, &line)) {
		if (line.text[0] && !strcmp(line.path, path)) {
			snprintf(content, *size, "%s", line.text);
			found = DONE;
		}
	}
	if (answers)
		fclose(answers);
	return found;
}
