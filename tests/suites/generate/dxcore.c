/* Stands for Windows' libdxcore.so on a simulated node: what NVIDIA's toolkit asks it (Microsoft's d3dkmthk.h). Two
 * adapters: one whose driver store is OTHER and has no CUDA, and one whose store is STORE. */
#include <string.h>
#include <wchar.h>

struct adapter {
	unsigned handle;
	unsigned luid[2];
	unsigned sources;
	unsigned moves;
};

struct all_adapters {
	unsigned count;
	struct adapter *list;
};

struct some_adapters {
	unsigned long long filter;
	unsigned count;
	struct adapter *list;
};

struct question {
	unsigned handle;
	unsigned type;
	void *data;
	unsigned size;
};

struct registry {
	unsigned type;
	unsigned flags;
	wchar_t name[260];
	unsigned value_type;
	unsigned index;
	unsigned size;
	unsigned status;
	unsigned long long value;
};

static const wchar_t *const stores[] = {OTHER, STORE};

static unsigned list(struct adapter *into)
{
	unsigned at;
	for (at = 0; into && at < 2; at++) {
		memset(&into[at], 0, sizeof *into);
		into[at].handle = at;
	}
	return 2;
}

int D3DKMTEnumAdapters2(struct all_adapters *asked)
{
	asked->count = list(asked->list);
	return 0;
}

int D3DKMTEnumAdapters3(struct some_adapters *asked)
{
	asked->count = list(asked->list);
	return 0;
}

int D3DKMTQueryAdapterInfo(struct question *asked)
{
	struct registry *answer = asked->data;
	const wchar_t *store = stores[asked->handle];
	unsigned size = wcslen(store) * sizeof *store;

	switch (asked->type) {
	case 13: /* version of the display driver model */
		*(unsigned *)asked->data = 3100;
		return 0;
	case 48: /* registry: the first call asks for the size */
		if (asked->size >= sizeof *answer + size)
			memcpy(&answer->value, store, size);
		answer->size = size;
		return 0;
	}
	return -1;
}
