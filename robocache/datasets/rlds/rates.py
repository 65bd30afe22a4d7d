"""Steps per second of RLDS datasets. The format stores no times, so the rate must be known of the dataset.

Sources, by letter:
    O  Open X-Embodiment dataset overview, column "Control Frequency" (https://robotics-transformer-x.github.io)
    R  RT-1, section 6.1: the robot is commanded at 3 Hz (arXiv:2212.06817)
    B  BridgeData V2, appendix: control at 5 Hz (arXiv:2308.12952)
    D  DROID, section III: the policy and the recording run at 15 Hz (arXiv:2403.12945)
"""

from __future__ import annotations

from fractions import Fraction

_EXTERNAL = "_converted_externally_to_rlds"

RATES: dict[str, Fraction] = {
    "fractal20220817_data": Fraction(3),  # R, O
    "bridge": Fraction(5),  # B, O
    "bridge_dataset": Fraction(5),  # B: the release on the project's own page
    "bridge_orig": Fraction(5),  # B: the same under the name that policies give it
    "bridge_oxe": Fraction(5),  # B, O
    "droid": Fraction(15),  # D
    "droid_100": Fraction(15),  # D: its first hundred episodes
    "kuka": Fraction(10),  # O, as all that follow
    "taco_play": Fraction(15),
    "jaco_play": Fraction(10),
    "berkeley_cable_routing": Fraction(10),
    "roboturk": Fraction(10),
    "nyu_door_opening_surprising_effectiveness": Fraction(3),
    "viola": Fraction(20),
    "berkeley_autolab_ur5": Fraction(5),
    "toto": Fraction(30),
    "language_table": Fraction(10),
    "columbia_cairlab_pusht_real": Fraction(10),
    "stanford_kuka_multimodal_dataset": Fraction(20),
    "nyu_rot_dataset": Fraction(3),
    "stanford_hydra_dataset": Fraction(10),
    "austin_buds_dataset": Fraction(20),
    "nyu_franka_play_dataset": Fraction(3),
    "maniskill_dataset": Fraction(20),
    "furniture_bench_dataset": Fraction(10),
    "cmu_franka_exploration_dataset": Fraction(10),
    "ucsd_kitchen_dataset": Fraction(2),
    "ucsd_pick_and_place_dataset": Fraction(3),
    "austin_sailor_dataset": Fraction(20),
    "austin_sirius_dataset": Fraction(20),
    "bc_z": Fraction(10),
    "utokyo_pr2_opening_fridge": Fraction(10),
    "utokyo_pr2_tabletop_manipulation": Fraction(10),
    "utokyo_xarm_pick_and_place": Fraction(10),
    "utokyo_xarm_bimanual": Fraction(10),
    "robo_net": Fraction(1),
    "berkeley_mvp": Fraction(5),
    "berkeley_rpt": Fraction(30),
    "kaist_nonprehensile": Fraction(10),
    "tokyo_u_lsmo": Fraction(10),
    "dlr_sara_pour": Fraction(10),
    "dlr_sara_grid_clamp": Fraction(10),
    "dlr_edan_shared_control": Fraction(5),
    "asu_table_top": Fraction(25, 2),
    "stanford_robocook": Fraction(5),
    "imperialcollege_sawyer_wrist_cam": Fraction(10),
    "iamlab_cmu_pickup_insert": Fraction(20),
    "uiuc_d3field": Fraction(1),
    "utaustin_mutex": Fraction(20),
    "berkeley_fanuc_manipulation": Fraction(10),
    "cmu_playing_with_food": Fraction(10),
    "cmu_play_fusion": Fraction(5),
    "cmu_stretch": Fraction(10),
    "berkeley_gnm_recon": Fraction(3),
    "berkeley_gnm_cory_hall": Fraction(5),
    "berkeley_gnm_sac_son": Fraction(10),
}


def known_rate(name: str) -> Fraction | None:
    """Steps per second of a dataset by its TFDS name, None where nobody wrote it down."""
    return RATES.get(name.removesuffix(_EXTERNAL))
