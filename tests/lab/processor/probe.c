/*
 * A program that runs on the emulated processor without any operating system. Its command line says what to do, word by word;
 * each word's outcome is a line on the serial port. After a reset it goes on behind the word that it was at.
 *
 * A word is CPU.WHAT[.NUMBER...]: CPU is the number of a processor, by its local APIC.
 *   load.N            write an update: module N, as Intel or AMD wants its address
 *   time.N            the same; says how many microseconds it took
 *   rev               the revision as an operating system asks for it (on Intel: zero to MSR 0x8b, CPUID, MSR 0x8b)
 *   rdmsr.M           say it; wrmsr.M.HIGH.LOW  write it
 *   cpuid.LEAF.SUB    say eax ebx ecx edx
 *   try.NAME          execute an instruction of probe.S; say what it left in eax or which fault it raised
 *   fuzz.SEED.COUNT   write addresses and headers made up at random
 *   init, nmi         send it to this processor
 * With a ? in front nothing is expected of it for more than a third of a second: "no answer" is an outcome then.
 * The word "reset" resets the machine. A word that a reset cut short has the outcome "reset". At the end the machine is switched off.
 *
 * Copyright: the fleet.microcode authors
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PROCESSORS 8
#define ALIAS 0xc0000000u  /* where all memory is seen a second time: addresses that are linear, not physical */
#define HOLE 0xb0000000u   /* where nothing is mapped */
#define SERIAL 0x3f8
#define EXIT 0xf4
#define APIC ((volatile u32 *)0xfee00000)
#define HPET ((volatile u32 *)0xfed00000)
#define PLACE ((volatile u32 *)0x2000000) /* memory outlives a reset: a mark, how many words are begun, whether the last of them has no outcome yet */
#define MARK 0x70726f62

struct multiboot { u32 flags, lower, upper, boot, command_line, modules, module; };
struct module { u32 start, end, text, reserved; };
struct task { void (*volatile call)(struct task *); u32 argument[4], result[4]; volatile u32 up, started; };

extern u8 trampoline[], trampoline_end[], handlers[];
extern u64 gdt[];
u32 attempt(u32 (*code)(void), u32 *value);
u32 try_xbegin(void), try_xabort(void), try_xend(void), try_xtest(void), try_popcnt(void), try_movbe(void);

static struct task tasks[PROCESSORS];
static const struct module *modules;
static u64 idt[32];
static u32 directory[1024] __attribute__((aligned(4096)));
static int intel;

static void out(u32 port, u8 value) { __asm__ volatile("outb %0, %w1" : : "a"(value), "d"(port)); }
static void outw(u32 port, u32 value) { __asm__ volatile("outw %w0, %w1" : : "a"(value), "d"(port)); }
static u8 in(u32 port) { u8 value; __asm__ volatile("inb %w1, %0" : "=a"(value) : "d"(port)); return value; }

static void cpuid(u32 leaf, u32 sub, u32 *r)
{
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "0"(leaf), "2"(sub));
}

static void wrmsr(u32 msr, u32 high, u32 low)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "d"(high), "a"(low) : "memory");
}

static void rdmsr(u32 msr, u32 *high, u32 *low)
{
    __asm__ volatile("rdmsr" : "=d"(*high), "=a"(*low) : "c"(msr));
}

static void say(const char *text)
{
    for (; *text; text++) {
        out(SERIAL, *text);
    }
}

static void say_hex(u32 value)
{
    char text[12] = " 0x", *to = text + 3;

    for (int shift = 28; shift >= 0; shift -= 4) {
        *to++ = "0123456789abcdef"[value >> shift & 15];
    }
    *to = 0;
    say(text);
}

static u64 ticks(void) /* of 10 ns */
{
    u32 high, low;

    do {
        high = HPET[0xf4 / 4];
        low = HPET[0xf0 / 4];
    } while (high != HPET[0xf4 / 4]);
    return (u64)high << 32 | low;
}

/* What a processor is told to do */

static void update(u32 high, u32 low)
{
    wrmsr(intel ? 0x79 : 0xc0010020, high, low);
}

static void do_load(struct task *t)
{
    u64 before = ticks();

    update(0, ALIAS + modules[t->argument[0]].start + (intel ? 48 : 0));
    t->result[0] = (u32)(ticks() - before) / 100;
}

static void do_rev(struct task *t)
{
    u32 r[4], high, low;

    if (intel) {
        wrmsr(0x8b, 0, 0);
        cpuid(1, 0, r);
    }
    rdmsr(0x8b, &high, &low);
    t->result[0] = intel ? high : low;
}

static void do_rdmsr(struct task *t) { rdmsr(t->argument[0], &t->result[0], &t->result[1]); }
static void do_wrmsr(struct task *t) { wrmsr(t->argument[0], t->argument[1], t->argument[2]); }
static void do_cpuid(struct task *t) { cpuid(t->argument[0], t->argument[1], t->result); }
static void do_try(struct task *t) { t->result[0] = attempt((u32 (*)(void))t->argument[0], &t->result[1]); }

static u32 seed;

static u32 next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    return seed ^= seed << 5;
}

static void do_fuzz(struct task *t)
{
    static const u32 sizes[] = { 0, 1, 4, 20, 48, 2000, 2048, 4096, 0x400000, 0x7fffffd0, 0x80000000, 0xffffffd0, 0xfffffffc, 0xffffffff };
    u32 r[4];

    cpuid(1, 0, r);
    seed = t->argument[0];
    for (u32 i = 0; i < t->argument[1]; i++) {
        u32 place = next() % 3 ? 0x3000000 + next() % 0x10000 : 0x4000000 - next() % 4096, *header = (u32 *)(ALIAS + (place & ~3u));
        u32 size = sizes[next() % 14], total = next() % 2 ? size + 48 : sizes[next() % 14];
        u32 words[12] = { 1, next(), 0x01022026, next() % 2 ? r[0] : next(), next(), 1, next() & 1, size, total, 0, 0, 0 };
        u32 length = place < 0x4000000 - 48 ? 12 : (0x4000000 - (place & ~3u)) / 4;
        for (u32 j = 0; j < length; j++) {
            header[j] = next() % 8 ? words[j] : next();
        }
        switch (next() % 4) {
        case 0:
            update(next() % 2 ? next() : 0, next());
            break;
        case 1:
            update(next() % 2 ? 0xffffffff : 0, next() % 64 - 32);
            break;
        default:
            update(0, (u32)header + (intel ? 48 : 0));
        }
    }
}

void serve(void)
{
    u32 me = APIC[0x20 / 4] >> 24;
    struct task *t = &tasks[me];
    struct { unsigned short limit; void *base; } __attribute__((packed)) at = { sizeof(idt) - 1, idt };
    u32 cr;

    __asm__ volatile("lidt %0" : : "m"(at));
    __asm__ volatile("mov %%cr4, %0; or $0x10, %0; mov %0, %%cr4" : "=&r"(cr)); /* pages of 4 MiB */
    __asm__ volatile("mov %0, %%cr3" : : "r"(directory));
    __asm__ volatile("mov %%cr0, %0; or $0x80000000, %0; mov %0, %%cr0" : "=&r"(cr));
    if (!me) {
        return;
    }
    t->call = 0;
    t->up = ++t->started;
    for (;;) {
        if (t->call) {
            t->call(t);
            __asm__ volatile("" : : : "memory");
            t->call = 0;
        }
        __asm__ volatile("pause");
    }
}

/* The first processor tells what to do */

static int within(const volatile void *word, u32 wanted, int hurried)
{
    u64 end = ticks() + (hurried ? 33000000 : 30000000000ull);

    while (*(const volatile u32 *)word != wanted) {
        if (ticks() > end) {
            say(" no answer\n");
            return 0;
        }
        __asm__ volatile("pause");
    }
    return 1;
}

static int run(u32 who, void (*call)(struct task *), int hurried)
{
    if (!who) {
        call(&tasks[0]);
        return 1;
    }
    tasks[who].call = call;
    return within(&tasks[who].call, 0, hurried);
}

static void send(u32 who, u32 what)
{
    APIC[0x310 / 4] = who << 24;
    APIC[0x300 / 4] = what;
}

static int start_up(u32 who, int hurried)
{
    u32 wanted = tasks[who].started + 1;
    u64 end = ticks() + 1000000;

    send(who, 0x4500); /* INIT */
    while (ticks() < end) { /* 10 ms, as Intel's manual asks */
    }
    send(who, 0x4608); /* start-up at 0x8000 */
    return within(&tasks[who].up, wanted, hurried);
}

static u32 number(const char **text)
{
    u32 value = 0, base = 10;

    if ((*text)[0] == '0' && (*text)[1] == 'x') {
        base = 16;
        *text += 2;
    }
    for (;; (*text)++) {
        char c = **text;
        u32 digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
        if (digit >= base) {
            return value;
        }
        value = value * base + digit;
    }
}

static int begins(const char **text, const char *with)
{
    const char *at = *text;

    while (*with && *at == *with) {
        at++;
        with++;
    }
    if (*with || (*at != '.' && *at != ' ' && *at)) {
        return 0;
    }
    *text = at;
    return 1;
}

static void obey(const char *word)
{
    static const struct { const char *name; void (*call)(struct task *); u32 results; } words[] = {
        { "load", do_load, 0 }, { "time", do_load, 1 }, { "rev", do_rev, 1 }, { "rdmsr", do_rdmsr, 2 }, { "wrmsr", do_wrmsr, 0 },
        { "cpuid", do_cpuid, 4 }, { "fuzz", do_fuzz, 0 },
    };
    static const struct { const char *name; u32 (*code)(void); } instructions[] = {
        { "xbegin", try_xbegin }, { "xabort", try_xabort }, { "xend", try_xend }, { "xtest", try_xtest },
        { "popcnt", try_popcnt }, { "movbe", try_movbe },
    };
    int hurried = *word == '?';
    u32 who;
    struct task *t;

    word += hurried;
    who = number(&word) % PROCESSORS;
    t = &tasks[who];
    word++;
    if (begins(&word, "init")) {
        if (start_up(who, hurried)) {
            say(" ok\n");
        }
        return;
    }
    if (begins(&word, "nmi")) {
        send(who, 0x4400);
        say(" ok\n");
        return;
    }
    if (begins(&word, "try")) {
        word++;
        for (u32 i = 0; i < sizeof(instructions) / sizeof(*instructions); i++) {
            if (begins(&word, instructions[i].name)) {
                t->argument[0] = (u32)instructions[i].code;
                if (run(who, do_try, hurried)) {
                    say(t->result[0] == 255 ? " ran" : " fault");
                    say_hex(t->result[0] == 255 ? t->result[1] : t->result[0]);
                    say("\n");
                }
                return;
            }
        }
    }
    for (u32 i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (begins(&word, words[i].name)) {
            for (u32 j = 0; j < 4; j++) {
                word += *word == '.';
                t->argument[j] = number(&word);
            }
            if (run(who, words[i].call, hurried)) {
                for (u32 j = 0; j < words[i].results; j++) {
                    say_hex(t->result[j]);
                }
                say(words[i].results ? "\n" : " ok\n");
            }
            return;
        }
    }
    say(" unknown\n");
}

void start(const struct multiboot *info)
{
    const char *word = (const char *)info->command_line;
    u32 r[4], count, done = 0;

    modules = (const struct module *)info->module;
    cpuid(0, 0, r);
    intel = r[1] == 0x756e6547;
    for (u32 i = 0; i < 1024; i++) {
        u32 at = i << 22;
        directory[i] = at >= ALIAS && at < ALIAS + 0x10000000 ? (at - ALIAS) | 0x83 : at >= HOLE && at < ALIAS ? 0 : at | 0x83;
    }
    for (u32 i = 0; i < 32; i++) {
        u32 at = (u32)handlers + 8 * i;
        idt[i] = (u64)(at & 0xffff0000) << 32 | 0x8e0000080000ull | (at & 0xffff);
    }
    struct { unsigned short limit; void *base; } __attribute__((packed)) at = { 23, gdt };
    __asm__ volatile("lgdt %0; ljmp $8, $1f; 1: mov %1, %%ds; mov %1, %%es; mov %1, %%ss" : : "m"(at), "r"(16));
    serve();
    APIC[0xf0 / 4] = 0x1ff;
    HPET[0x10 / 4] |= 1;
    for (u32 i = 0; i < (u32)(trampoline_end - trampoline); i++) {
        ((u8 *)0x8000)[i] = trampoline[i];
    }
    outw(0x510, 5); /* fw_cfg: how many processors */
    count = in(0x511);
    for (u32 i = 1; i < count && i < PROCESSORS; i++) {
        if (!start_up(i, 0)) {
            say("a processor did not start\n");
        }
    }
    if (PLACE[0] != MARK) {
        PLACE[0] = MARK;
        PLACE[1] = PLACE[2] = 0;
    } else if (PLACE[2]) {
        say(" reset\n");
    }
    while (*word && *word != ' ') { /* the program's name */
        word++;
    }
    while (*word) {
        while (*word == ' ') {
            word++;
        }
        if (*word && done++ >= PLACE[1]) {
            PLACE[1] = done;
            for (const char *c = word; *c && *c != ' '; c++) {
                out(SERIAL, *c);
            }
            PLACE[2] = 1;
            if (begins(&word, "reset")) {
                out(0xcf9, 6);
                for (;;) {
                }
            }
            obey(word);
            PLACE[2] = 0;
        }
        while (*word && *word != ' ') {
            word++;
        }
    }
    out(EXIT, 0);
}
