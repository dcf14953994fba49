/* Events of one aggregate on their way: outbox, relay, a broker that may lose its log, consumer.
 *
 * Event e is the aggregate's version e. A step is what happens in one transaction, or in one
 * exchange with the broker; anything may happen between two steps. One partition, whose only writer
 * is this relay. The names are those of common/outbox.py, common/consumer.py and common/inbox.py.
 *
 * Defined for another kind of topic:
 *   STATES         only the newest version is published again (else: facts, of which each counts)
 * A second run with one of these defined must find a violation:
 *   NO_INBOX       the consumer applies what it has applied
 *   CLAIM_APART    it claims an event in one transaction and applies it in the next
 *   OFFSET_FIRST   it commits its offset before it has applied
 *   NO_VERSION     it lets an older version replace a newer one
 *   NO_EPOCH       it does not notice that the log began again
 *   FORGETS_EPOCH  after a restart it takes the first epoch that it meets for the one that it knew
 *   NO_WATERMARK   the relay does not notice that the log is gone
 *   NO_RISE        the relay does not notice that the log went while it sent its first batch
 *   MARKS_FIRST    the relay marks rows as published before the broker has them
 *   ANY_ORDER      the relay sends rows in any order
 * And these, which are no guards but limits of the design (docs/models.md):
 *   DIES_UNNOTICED   the relay dies after the log was lost, before it has heard of it
 *   NOTHING_FOLLOWS  no other message ever comes to the partition
 */
#define EVENTS 3
#define DEATHS 1                /* of the relay, and of the consumer */
#define ROOM 16
#define NONE 255
#define OTHER 0                 /* a message of another aggregate, in the same partition */

/* In the sender's database. */
byte committed = 0;             /* versions 1..committed are in the outbox */
bool published[EVENTS + 1];     /* published_at of the row is set */
byte watermark = 0;             /* outbox_watermark.next_offset; 0: none */
byte log_epoch = 0;             /* outbox_log.log_epoch */

/* In the broker. */
byte log_event[ROOM];
byte log_epochs[ROOM];
byte length = 0;
byte group_offset = 0;
bool lost = false;
bool unnoticed = false;         /* it lost what it had, and the relay has not heard of it */

/* In the receiver's database. */
bool inbox[EVENTS + 1];
byte applied[EVENTS + 1];       /* how often each version was applied */
byte version = 0;               /* the state that it has */

active proctype writer() {
    do
    :: committed < EVENTS -> committed++
    :: committed == EVENTS -> break
    od
}

#ifdef DIES_UNNOTICED
#define RELAY_MAY_DIE (deaths < DEATHS)
#else
#define RELAY_MAY_DIE (deaths < DEATHS && !unnoticed)
#endif
#define WAITS(v)  (v <= committed && !published[v])
#define ANY_WAITS (WAITS(1) || WAITS(2) || WAITS(3))

inline start_again() {
    log_epoch++; watermark = 0; unnoticed = false;
    for (i : 1 .. EVENTS) {
#ifdef STATES
        if
        :: i == committed -> published[i] = false
        :: else -> skip
        fi
#else
        published[i] = false
#endif
    }
    i = 0
}

inline mark(from, to) {
    for (i : 1 .. EVENTS) {
        if
        :: i >= from && i <= to -> published[i] = true
        :: else -> skip
        fi
    }
    i = 0
}

inline next_row() {
    do
    :: e <= upto && published[e] -> e++
    :: else -> break
    od
}

active proctype relay() {
    byte e, from, upto, i, deaths, first, last;
    bool behind;
end:
    do
#ifndef NO_WATERMARK
    :: atomic { length < watermark -> start_again() }
#endif
    :: atomic { ANY_WAITS ->
            /* The batch: the rows that are not published, in the order of their ids. */
            e = 1; upto = committed;
            next_row();
#ifdef ANY_ORDER
            if
            :: skip
            :: e < upto && !published[upto] -> e = upto
            fi;
            upto = e;
#endif
            from = e; first = NONE; last = NONE; behind = false
       };
#ifdef MARKS_FIRST
       if
       :: atomic { true -> mark(from, upto) }
       :: atomic { RELAY_MAY_DIE -> mark(from, upto); deaths++; goto end }
       fi;
#endif
       do
       :: atomic { e <= upto ->
            if
#ifndef NO_WATERMARK
            :: length < watermark -> behind = true
#ifndef NO_RISE
            :: last != NONE && length <= last -> behind = true
#endif
#endif
            :: else -> skip
            fi;
            last = length;
            first = (length < first -> length : first);
            assert(length < ROOM);
            log_event[length] = e; log_epochs[length] = log_epoch; length++;
            e++;
#ifndef MARKS_FIRST
            next_row()
#endif
          }
       :: atomic { e > upto -> break }
       :: atomic { RELAY_MAY_DIE -> deaths++; goto end }
       od;
       /* All are acknowledged. */
       atomic {
            if
            :: RELAY_MAY_DIE -> deaths++; goto end
            :: behind -> start_again()
            :: !behind -> mark(from, upto); watermark = (first + 1 > watermark -> first + 1 : watermark)
            fi
       }
    od
}

/* May lose its log, once, and with it what its groups have read, or not. */
active proctype broker() {
    if
    :: atomic { true ->
            lost = true; unnoticed = length > 0; length = 0;
            if
            :: group_offset = 0
            :: skip
            fi
       }
    :: true
    fi
}

inline apply(e) {
    assert(lost || e == version + 1 || inbox[e]);
    applied[e]++;
    assert(applied[e] == 1);
    if
#ifdef NO_VERSION
    :: version = e
#else
    :: e > version -> version = e
    :: else -> skip
#endif
    fi
}

active proctype consumer() {
    byte e, position, epoch, deaths;
    bool met;
end:
    do
    :: atomic { position > length -> position = 0 }
    :: atomic { position < length ->
            e = log_event[position];
#ifdef FORGETS_EPOCH
            epoch = (met -> epoch : log_epochs[position]); met = true;
#endif
            if
#ifndef NO_EPOCH
            :: log_epochs[position] > epoch -> epoch = log_epochs[position]; position = 0; goto end
#endif
            :: else -> position++
            fi
       };
#ifdef OFFSET_FIRST
       atomic { group_offset = position };
       if
       :: skip
       :: atomic { deaths < DEATHS -> deaths++; goto died }
       fi;
#endif
       /* One transaction: the claim in the inbox, and what the event does. */
       atomic {
            if
            :: e == OTHER -> goto handled
#ifndef NO_INBOX
            :: inbox[e] -> goto handled
#endif
            :: else -> skip
            fi;
#ifndef CLAIM_APART
            apply(e);
#endif
            inbox[e] = true
       };
#ifdef CLAIM_APART
       if
       :: atomic { true -> apply(e) }
       :: atomic { deaths < DEATHS -> deaths++; goto died }
       fi;
#endif
handled:
       if
#ifndef OFFSET_FIRST
       :: atomic { group_offset = position }
#else
       :: true
#endif
       :: atomic { deaths < DEATHS -> deaths++; goto died }
       fi;
       if
       :: true
       :: atomic { deaths < DEATHS -> deaths++; goto died }
       fi;
       goto end;
died:
       atomic { true -> position = group_offset; epoch = 0; met = false }
    od
}

/* Nobody can do anything more: then everything has arrived, at the latest with the next message. */
active proctype auditor() {
    byte e;
#ifndef NOTHING_FOLLOWS
    atomic {
        timeout ->
        log_event[length] = OTHER; log_epochs[length] = log_epoch; length++
    };
#endif
    atomic {
        timeout ->
        assert(version == EVENTS);
#ifndef STATES
        for (e : 1 .. EVENTS) { assert(applied[e] == 1) }
#endif
    }
}
