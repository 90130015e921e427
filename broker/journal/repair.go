package journal

const quarantineName = "quarantine"

const typeLost = 0x8f
