"""x"""
def refresh_readme(p): return 0
def write(p): pass
def write_growth(p): pass
def table(r): return ""
