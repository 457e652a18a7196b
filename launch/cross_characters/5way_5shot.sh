#!/usr/bin/env bash
# Across character sets, 5-way 5-shot: trains on Omniglot and tests the best
# checkpoint on all classes of TARGET (mnist; emnist if you converted it), with
# calibration and classes outside of the support:
#   bash launch/cross_characters/5way_5shot.sh LEARNER [FLAGS of the training]
# omniglot_background, converted with configs/splits/omniglot_background.txt, has
# no Latin letters among its training classes (but among those of valid, unless
# its line there says none). launch/common.sh says which learners there are.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_across omniglot_background "${TARGET:-mnist}" all 5 5 "$@"
