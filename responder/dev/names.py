"""The names of the demo people and of their organizations."""

DEPARTMENTS = ("engineering", "design", "sales", "support", "finance", "people", "operations")

# Name, slug, number of members. The creator of an organization is its owner.
ORGANIZATIONS = (
    ("Lumen Cartography", "lumen", 184),
    ("Fjord & Fable", "fjord-and-fable", 61),
    ("Cooperativa Casa Azul", "casa-azul", 37),
    ("Tanuki Robotics", "tanuki", 24),
    ("Kestrel Clinic", "kestrel", 16),
    ("Pracownia Żółw", "zolw", 9),
    ("Pocket Museum", "pocket-museum", 4),
    ("One-Person Garden", "garden", 1),
)

GIVEN = (
    *("Amara", "Aisha", "Alma", "Anaïs", "Arjun", "Beatriz", "Björn", "Brigitte", "Caoimhe"),
    *("Chidi", "Chloé", "Dagny", "Daniel", "Dilnoza", "Eleni", "Emeka", "Esther", "Fatima"),
    *("Farah", "Gaël", "Grace", "Hana", "Héctor", "Hiroshi", "Ibrahim", "Ines", "Ingrid"),
    *("Isak", "Jörg", "Joana", "Kaito", "Kasia", "Kofi", "Leila", "Liam", "Łukasz", "Lucía"),
    *("Malik", "Maja", "Marek", "Mei", "Miriam", "Nadia", "Ngozi", "Noa", "Noor", "Ólafur"),
    *("Omar", "Ondřej", "Paolo", "Priya", "Ragnhild", "Ravi", "Renée", "Rosa", "Samir", "Sara"),
    *("Selin", "Siobhán", "Sofia", "Søren", "Tariq", "Tomás", "Uma", "Viktor", "Wanjiru"),
    *("Xiomara", "Yara", "Yusuf", "Zainab", "Zoë"),
)
FAMILY = (
    *("Abara", "Ahmadi", "Andersson", "Aydın", "Banerjee", "Bauer"),  # noqa: RUF001 - Turkish
    *("Bianchi", "Brennan"),
    *("Carvalho", "Castillo", "Chaudhry", "Costa", "Cruz", "Çelik", "Diallo", "Dubois"),
    *("Eriksen", "Farouk", "Fernández", "Fischer", "García", "Grönlund", "Haddad", "Hansen"),
    *("Horváth", "Ito", "Ivanova", "Jansen", "Jovanović", "Kamau", "Kaya", "Kim", "Kovač"),
    *("Kowalski", "Laurent", "Lindqvist", "Mbeki", "Mehta", "Mensah", "Moreau", "Müller"),
    *("Nakamura", "Nguyễn", "Novák", "Núñez", "O'Connor", "Okafor", "Oliveira", "Osei"),
    *("Özdemir", "Papadaki", "Patel", "Petrov", "Quispe", "Rahman", "Reyes", "Rossi"),
    *("Sánchez", "Sato", "Schäfer", "Silva", "Sørensen", "Šimić", "Tanaka", "Thibault"),
    *("Vargas", "Virtanen", "Weiß", "Wójcik", "Yılmaz", "Zhang"),  # noqa: RUF001 - Turkish
)
# Names that do not reduce to ASCII, or would reduce badly, with what their email begins with.
WRITTEN_OUT = {
    "李小龍": "lee.siulung",
    "山田 花子": "hanako.yamada",
    "Αλέξανδρος Παπαδόπουλος": "alexandros.papadopoulos",
    "Олена Шевченко": "olena.shevchenko",
    "فاطمة الزهراء": "fatima.alzahra",
    "नेहा शर्मा": "neha.sharma",
    "김민준": "minjun.kim",
    "דנה לוי": "dana.levi",
    "สมชาย ใจดี": "somchai.jaidee",
    "Ømer Ståhl": "omer.stahl",
    "José María Núñez de la Peña": "josemaria.nunez",
    "Wolfeschlegelsteinhausenbergerdorff, Hubert": "hubert.w",
    "Björk 🎸": "bjork",
    "Þóra Ægisdóttir": "thora.aegisdottir",
}
# Unicode does not decompose these letters into an ASCII letter and a mark, as it does é.
LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "ß": "ss", "ı": "i", " ": "."}  # noqa: RUF001 - Turkish
)
