"""The colours of maps: matplotlib's tables, as loading matplotlib takes longer than writing a page.

Every fifth colour is kept; between them, colours are interpolated.
"""

from functools import cache

import numpy as np

_EVERY_FIFTH = {
    "inferno": (
        "00000402020c0504170a072210092d160b391e0c45260c512f0a5b380962400a67490b6a510e6c59106e61136e69166e71196e781c6d"
        "801f6c88226a902568982766a02a63a82e5fb0315bb73557bf3952c63d4dcc4248d34743d94d3ddf5337e45a31e9612bed6925f1711f"
        "f47918f78212f98b0bfa9407fb9d07fca60cfcb014fbba1ffac42af8cd37f6d746f4e156f2ea69f2f27df5f992fcffa4"
    ),
    "viridis": (
        "44015446085c471063481769481d6f482475472a7a46307e453781433d844142873f48893d4e8a3a538b38598c355e8d33638d31688e"
        "2e6d8e2c718e2a768e297b8e27808e25848e23898e218e8d20928c1f978b1e9c891fa18821a58524aa8328ae802eb37c35b7793dbc74"
        "46c06f50c46a5ac86465cb5e70cf577cd25089d54895d840a2da37b0dd2fbddf26cae11fd8e219e5e419f1e51dfde725"
    ),
    "cividis": (
        "00224e002656002a5f002d68003070083370163770203a6f273e6e2e416d34456c3a486c3f4c6c444f6c49536c4e566c535a6d575d6d"
        "5c616e60646f656870696b716d6f727272747676767a7a787e7d788381798885788d8878928c789690779b9476a09875a59c74aaa073"
        "afa471b5a86fbaac6dbfb06bc4b468c9b965cfbd62d4c15fdac65bdfca57e5cf52ead34cf0d846f6dd3ffce236fee838"
    ),
    "RdBu_r": (
        "0530610a3b7010457e15508d1b5a9c2065ab276eb02e77b53480b93b88be4291c24f9bc75fa5cd6eaed27eb8d78dc2dc9bc9e0a7d0e4"
        "b3d6e8c0dcebcce2efd5e7f1ddebf2e4eef4ecf2f5f3f5f6f8f4f2f9efe9fae9dffbe4d6fcdecdfcd7c2fbccb4f9c2a7f7b799f5ac8b"
        "f2a17fec9374e6866ae17860db6b55d55d4cce4f45c6413ebf3338b82531b1182ba21328930e2684092476052167001f"
    ),
    "gray": "000000ffffff",
}


@cache
def table(name: str) -> np.ndarray:
    """The 256 colours [256, 3] uint8 of ``name``."""
    kept = np.frombuffer(bytes.fromhex(_EVERY_FIFTH[name]), np.uint8).reshape(-1, 3)
    places = np.linspace(0, 255, len(kept))
    colours: np.ndarray = np.stack([np.interp(np.arange(256), places, channel) for channel in kept.T], 1)
    return np.asarray(colours.round(), np.uint8)


def gradient(name: str) -> str:
    """The colours of ``name`` as a CSS gradient from left to right."""
    return f"linear-gradient(to right, {', '.join(f'#{colour.tobytes().hex()}' for colour in table(name)[::15])})"
