/*
 * The parts of the probe that C cannot say: where it starts, how other processors start, faults, and instructions to try.
 *
 * Copyright: the fleet.microcode authors
 * SPDX-License-Identifier: GPL-3.0-or-later
 */
.section .note.GNU-stack, ""

.text
.align 4
.long 0x1badb002, 3, -(0x1badb002 + 3) /* pages aligned, memory told */
.globl _start
_start:
    mov $stacks + 4096, %esp
    push %ebx
    call start
1:  hlt
    jmp 1b

/* An application processor: copied to 0x8000, where its first instruction lies at its start-up. */
.globl trampoline, trampoline_end
.code16
trampoline:
    cli
    lgdtl %cs:table - trampoline
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    ljmpl $8, $awake
table:
    .word 23
    .long gdt
trampoline_end:
.code32
awake:
    mov $16, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov 0xfee00020, %eax
    shr $24, %eax
    inc %eax
    shl $12, %eax
    lea stacks(%eax), %esp
    call serve
1:  hlt
    jmp 1b

/* unsigned attempt(code, unsigned *value): calls code; the number of the exception that it raised, or 255 and what it left in eax */
.globl attempt
attempt:
    push %ebx
    push %esi
    push %edi
    push %ebp
    call own
    mov %esp, (%eax)
    mov 24(%esp), %edi
    call *20(%esp)
    mov %eax, (%edi)
    mov $255, %eax
back:
    pop %ebp
    pop %edi
    pop %esi
    pop %ebx
    ret

own: /* where this processor keeps its stack pointer */
    mov 0xfee00020, %eax
    shr $24, %eax
    lea kept_stack(, %eax, 4), %eax
    ret

.align 8
.globl handlers
handlers: /* eight bytes each; an error code below the number does not matter, since the stack is given up */
    .set number, 0
    .rept 32
    .align 8
    push $number
    jmp fault
    .set number, number + 1
    .endr

fault:
    pop %ebx
    call own
    mov (%eax), %esp
    mov %ebx, %eax
    jmp back

/* Instructions */
.globl try_xbegin, try_xabort, try_xend, try_xtest, try_popcnt, try_movbe
try_xbegin: /* 1 in a transaction, else the status with which it aborted */
    mov $0x1234, %eax
    xbegin 1f
    mov $1, %eax
1:  ret
try_xabort:
    mov $7, %eax
    xabort $1
    ret
try_xend:
    xend
    ret
try_xtest: /* the arithmetic flags */
    stc
    xtest
    pushf
    pop %eax
    and $0x8d5, %eax
    ret
try_popcnt:
    mov $0xf0f, %ecx
    popcnt %ecx, %eax
    ret
try_movbe:
    movbe word, %eax
    ret

.data
.align 8
.globl gdt
gdt:
    .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
word:
    .long 0x11223344
.bss
.align 4096
.globl stacks
stacks:
    .skip 4096 * 9 /* the first processor's while it starts, and one for each */
kept_stack:
    .skip 4 * 8
