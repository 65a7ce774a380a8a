"""Who stores which state, and what a successor makes of a dead predecessor."""

import unittest

import mmapipc
from mmapipc._ring import layout, states
from mmapipc._ring.states import Verdict

from .test_ring import Ring, nothing


class Successors(unittest.TestCase):
    def test_a_successor_settles_what_a_dead_end_left(self):
        ring = Ring(4)
        ring.attach()
        states.settle_sender(ring.words, "ring")
        self.assertTrue(states.has_receiver(ring.words, "ring"))
        self.assertIs(ring.sees(ring.consumer, True), Verdict.DIED)

        ring = Ring(4)
        ring.attach()
        self.assertFalse(ring.wants_receiver(True))
        self.assertIs(ring.sees(ring.producer, True), Verdict.DIED)

        ring = Ring(4)
        ring.producer.finish()
        states.settle_sender(ring.words, "ring")
        self.assertFalse(states.has_receiver(ring.words, "ring"))
        self.assertEqual(ring.words[layout.SENDER_STATE], layout.FINISHED)

    def test_only_a_live_and_fresh_stream_wants_a_receiver(self):
        self.assertFalse(Ring(4).wants_receiver(False))
        ring = Ring(4)
        ring.producer.abort()
        self.assertFalse(ring.wants_receiver(True))
        ring = Ring(4)
        ring.producer.finish()
        self.assertTrue(ring.wants_receiver(True))

    def test_a_question_stores_nothing(self):
        ring = Ring(4)
        ring.attach()
        before = ring.words.tolist()
        states.has_receiver(ring.words, "ring")
        for kept in (False, True):
            states.wants_receiver(ring.words, "ring", persistent=True, kept=kept, sender_lives=True)
        self.assertEqual(ring.words.tolist(), before)


class Ends(unittest.TestCase):
    def test_who_has_lost_the_stream_is_told(self):
        # As a successor does, which has the role by then.
        ring = Ring(4)
        states.settle_sender(ring.words, "ring")
        with self.assertRaisesRegex(mmapipc.StreamAborted, "^ring: another process has taken the stream"):
            ring.producer.finish()
        self.assertEqual(ring.words[layout.SENDER_STATE], layout.DIED)
        # And what has come after it is not touched.
        states.clear(ring.words, 0, nothing)
        states.begin(ring.words, layout.Header(4, 8, False), 3, nothing)
        ring.words[layout.SENDER_STATE] = layout.FINISHED
        ring.producer.sequence = 2
        ring.producer.abort()
        self.assertEqual(
            (ring.words[layout.WRITE_SEQ], ring.words[layout.SENDER_STATE]), (0, layout.FINISHED)
        )

    def test_a_stream_ends_once(self):
        ring = Ring(4)
        ring.producer.finish()
        ring.producer.finish()
        ring.producer.abort()
        self.assertEqual(ring.words[layout.SENDER_STATE], layout.FINISHED)
        ring = Ring(4)
        ring.producer.abort()
        with self.assertRaisesRegex(mmapipc.StreamAborted, "^ring: another thread has given up the stream"):
            ring.producer.finish()
        self.assertEqual(ring.words[layout.SENDER_STATE], layout.ABORTED)

    def test_a_receiver_leaves_once(self):
        ring = Ring(4)
        ring.attach()
        ring.consumer.close()
        ring.consumer.abort()
        self.assertIs(ring.sees(ring.producer, True), Verdict.LEFT)
        # And a stream that has begun since then is not touched: nobody was its receiver.
        states.clear(ring.words, 0, nothing)
        states.begin(ring.words, layout.Header(4, 8, False), 3, nothing)
        before = ring.words.tolist()
        ring.consumer.close()
        self.assertEqual(ring.words.tolist(), before)
