#!/usr/bin/env bash
# Across character sets, 5-way 5-shot: trains on Omniglot and tests the best
# checkpoint on all classes of TARGET (mnist; emnist if you converted it), with
# calibration and uncertainty on classes outside of the support:
#   bash launch/cross_characters/5way_5shot.sh LEARNER [FLAGS of the training]
# omniglot_background, converted with configs/splits/omniglot_background.txt, has
# no Latin letters in its training classes (they are in valid, unless that file
# says none for them). launch/common.sh lists the learners.
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"
run_across omniglot_background "${TARGET:-mnist}" all 5 5 "$@"
