/* Clearing between a source A and a destination B, as timebank/clearing/domain.py decides it.
 *
 * Transfers 0..N-1 of one minute each. The wire keeps, for each transfer, whether a message of each
 * kind is on it: delivering leaves it there (it comes again, late, in any order), losing takes it
 * away. A destination's clock passes a deadline whenever it likes. Both sides keep what they
 * decided in the step in which they send (the outbox); a restart therefore changes nothing that is
 * written here, and is no step of its own.
 *
 * A second run with one of these defined must find a violation:
 *   NO_DEADLINE      B accepts whatever the hour
 *   NO_REPEAT_CHECK  A settles or returns again when it hears an answer again
 *   NO_LIMIT         B overlooks what the two cities agreed on
 *   NO_DECIDE_ONCE   B decides again when it is asked again
 *   GUESSES          A takes silence past the deadline for a refusal
 *   NEVER_ASKS       A sends its prepare once
 */
#define N 3                     /* transfers */
#define LIMIT 2                 /* minutes that A may come to owe B */
#define LOSSES 2                /* messages */

mtype = { idle, sent, settled, returned };   /* a transfer as A keeps it */
mtype = { undecided, accepted, refused };    /* a transfer as B keeps it */

mtype out[N] = idle;
mtype decided[N] = undecided;
bool prepare[N], yes[N], no[N];      /* what is on the wire */
bool late[N];                        /* B's clock is past the deadline */
bool late_yes[N];                    /* B accepted although it was */
byte said[N];                        /* how many different answers B has given: bit 1 yes, 2 no */
byte losses = 0;

/* Minutes; below zero in a book is given. A: payer + in_transit + clearing_b = 0. */
short payer = 0, in_transit = 0, clearing_b = 0;
/* B: payee + clearing_a = 0. */
short payee = 0, clearing_a = 0;

#ifdef NO_DEADLINE
#define NOT_TOO_LATE(t) true
#else
#define NOT_TOO_LATE(t) (!late[t])
#endif
#ifdef NO_LIMIT
#define HAS_ROOM true
#else
#define HAS_ROOM (clearing_a - 1 >= -LIMIT)
#endif

/* It may always refuse: nobody by that name, a closed account, a suspended agreement. */
inline decide(t) {
    if
    :: NOT_TOO_LATE(t) && HAS_ROOM -> decided[t] = accepted; late_yes[t] = late[t]; clearing_a--; payee++
    :: true -> decided[t] = refused
    fi
}

/* One of each for every transfer: in what order they are looked at is nobody's promise. */
proctype source(byte t) {
    atomic { payer--; in_transit++; out[t] = sent; prepare[t] = true };
    do
    :: atomic { yes[t] && out[t] == sent -> in_transit--; clearing_b++; out[t] = settled }
    :: atomic { no[t] && out[t] == sent -> in_transit--; payer++; out[t] = returned }
#ifndef NEVER_ASKS
    :: atomic { out[t] == sent && !prepare[t] -> prepare[t] = true }
#endif
#ifdef NO_REPEAT_CHECK
    :: atomic { yes[t] && out[t] == settled && clearing_b < N -> in_transit--; clearing_b++ }
#endif
#ifdef GUESSES
    :: atomic { out[t] == sent && late[t] -> in_transit--; payer++; out[t] = returned }
#endif
    od
}

proctype destination(byte t) {
    do
    :: atomic {
        prepare[t] ->
        if
#ifdef NO_DECIDE_ONCE
        :: payee < N -> decide(t)
        :: payee >= N -> skip
#else
        :: decided[t] == undecided -> decide(t)
        :: else -> skip
#endif
        fi;
        if
        :: decided[t] == accepted -> yes[t] = true; said[t] = said[t] | 1
        :: decided[t] == refused -> no[t] = true; said[t] = said[t] | 2
        fi
    }
    od
}

init {
    byte t;
    atomic {
        for (t : 0 .. (N - 1)) { run source(t); run destination(t) }
    }
}

/* The world: clocks pass deadlines, the wire loses what it likes, but not for ever. */
active proctype world() {
    byte t;
    do
    :: atomic {
        select(t : 0 .. (N - 1));
        if
        :: !late[t] -> late[t] = true
        :: losses < LOSSES && prepare[t] -> prepare[t] = false; losses++
        :: losses < LOSSES && yes[t] -> yes[t] = false; losses++
        :: losses < LOSSES && no[t] -> no[t] = false; losses++
        :: else -> skip
        fi
    }
    od
}

#define NOBODY_GAINS   (payer + in_transit + clearing_b == 0 && payee + clearing_a == 0)
#define IN_TRANSIT     (in_transit >= 0)
#define WITHIN_LIMIT   (clearing_a >= -LIMIT)
#define ONE_STORY(t)   (!(out[t] == returned && decided[t] == accepted) && \
                        !(out[t] == settled && decided[t] != accepted) && said[t] != 3)
#define IN_TIME(t)     (!late_yes[t])
#define SENT(t)        (out[t] == sent -> 1 : 0)
#define IN_FLIGHT(t)   (out[t] == sent && decided[t] == accepted -> 1 : 0)

#define HOLDS (NOBODY_GAINS && IN_TRANSIT && WITHIN_LIMIT \
    && ONE_STORY(0) && ONE_STORY(1) && ONE_STORY(2) \
    && IN_TIME(0) && IN_TIME(1) && IN_TIME(2) \
    && in_transit == SENT(0) + SENT(1) + SENT(2) \
    && clearing_b + clearing_a == -(IN_FLIGHT(0) + IN_FLIGHT(1) + IN_FLIGHT(2)))

/* Looks at every state: what holds between two steps holds for whoever reads the books then. */
active proctype auditor() {
    atomic { !HOLDS -> assert(HOLDS) }
}

/* Whoever sends is answered, once the wire stops losing (weak fairness: pan -f). */
ltl ends { [] (out[0] == sent -> <> (out[0] == settled || out[0] == returned)) }
