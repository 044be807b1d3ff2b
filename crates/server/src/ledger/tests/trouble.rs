//! One by one what operators, other programs and other nodes do to the store.
